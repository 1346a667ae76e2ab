"""Decode, score and bootstrap one model, or two on the same examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.records.place import check_file_place
from kvar.study.evaluation.output import write_comparison, write_result
from kvar.study.evaluation.result import Options, Result
from kvar.study.evaluation.table import difference_table, score_table
from kvar.study.evaluation.target import Target

if TYPE_CHECKING:
    from kvar.intervals import Interval
    from kvar.tasks import Example

__all__ = ["check_same_examples", "compare_results", "evaluate_runs", "evaluate_target"]


def evaluate_target(target: Target, options: Options = Options()) -> Result:
    """Decode the target's split and score it.

    Args:
        target: from ``kvar.study.evaluation.target.find_target``.
        options: of the evaluation.

    Raises:
        ValueError: a model or data that cannot be loaded, a missing split, bad rows.
    """
    import torch

    from kvar.distill import evaluate
    from kvar.evaluation.bootstrap import intervals
    from kvar.hooks import parse_estimators
    from kvar.study.run.build import assemble
    from kvar.study.run.prompt_lengths import check_prompts

    settings, training = target.settings.evaluation, target.training
    kernels = [estimator.kernel for estimator in parse_estimators(target.kernels)]
    parts = assemble(target.settings, training.seed)
    if (Path(target.model) / "adapter_config.json").is_file():
        from peft import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(parts.student, load_peft_weights(target.model, device="cpu"))
    examples = parts.task.examples(settings.eval_split, settings.eval_limit or None)
    check_prompts(settings.eval_split, examples, training, parts, teacher=options.teacher)
    device = "cuda" if torch.cuda.is_available() and not training.use_cpu else "cpu"
    teacher = parts.teacher.to(device) if parts.teacher is not None and options.teacher else None
    evaluation = evaluate(
        parts.student.to(device),
        parts.task,
        examples,
        parts.tokenizer,
        max_new_tokens=training.max_new_tokens,
        num_beams=settings.eval_beams,
        batch=options.batch,
        calculator=settings.calculator,
        teacher=teacher,
        kernels=kernels,
        centre=training.centre,
        value=training.value,
    )
    scores = intervals(evaluation.scores, resamples=options.resamples, seed=options.seed, level=options.level)
    return Result(target, examples, evaluation, scores, options)


def compare_results(first: Result, second: Result) -> dict[str, Interval]:
    """Second minus first of every score that both have, paired by example.

    Raises:
        ValueError: the results are of different examples.
    """
    from kvar.evaluation.bootstrap import difference

    check_same_examples((first.target.name, first.examples), (second.target.name, second.examples))
    options = first.options
    return difference(
        first.evaluation.scores,
        second.evaluation.scores,
        resamples=options.resamples,
        seed=options.seed,
        level=options.level,
    )


def check_same_examples(first: tuple[str, list[Example]], second: tuple[str, list[Example]]) -> None:
    """Raise ValueError where two models, each a name and its examples, have different examples."""
    (name, ours), (other, theirs) = first, second
    if ours != theirs:
        rows = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b]
        where = f"example {rows[0]} differs" if rows else f"{len(ours)} and {len(theirs)} examples"
        raise ValueError(
            f"{name} and {other} have different examples ({where}): a paired comparison needs the same. Give both the "
            "same task, data, prefix, split and limit."
        )


def evaluate_runs(
    names: Sequence[str],
    overrides: Mapping[str, Any] | None = None,
    options: Options = Options(),
    *,
    output: str | None = None,
    checkpoint: str | None = None,
    model: str | None = None,
    kernels: str | None = None,
) -> str:
    """Evaluate one model, or two on the same examples; write the results and return them as text.

    Args:
        names: one or two runs or configs, see :func:`kvar.study.evaluation.target.find_target`.
        overrides: fields that replace the run's, such as ``{"eval_split": "test"}``.
        options: of the evaluation.
        output: JSON file of the result, or of the comparison of two; default a file in the run's folder.
        checkpoint: see ``find_target``.
        model: see ``find_target``.
        kernels: see ``find_target``.

    Raises:
        ValueError: bad input.
    """
    from kvar.study.evaluation.target import find_target

    if len(names) > 2:
        raise ValueError(f"evaluate takes one target, or two to compare; got {len(names)}.")
    targets = [
        find_target(name, overrides, checkpoint=checkpoint, model=model, kernels=kernels, teacher=options.teacher)
        for name in names
    ]
    if len(targets) == 2:  # before the work
        check_same_examples(*((target.name, _examples(target)) for target in targets))
    paths = [target.default_output() for target in targets]
    if output is not None and len(targets) == 1:
        paths = [Path(output)]
    for path in [*paths, *([Path(output)] if output is not None else [])]:
        check_file_place(path, "output")
    lines, results = [], []
    for target, path in zip(targets, paths, strict=True):
        print(f"{target.name}: {target.describe()}", flush=True)
        results.append(evaluate_target(target, options))
        lines += [score_table(results[-1]), *write_result(results[-1], path), ""]
    if len(results) == 2:
        differences = compare_results(results[0], results[1])
        lines.append(difference_table(results[0], results[1], differences))
        path = Path(output) if output is not None else targets[1].comparison_output(targets[0])
        write_comparison(results[0], results[1], differences, path)
        lines.append(f"written: {path}")
    return "\n".join(lines).rstrip()


def _examples(target: Target) -> list[Example]:
    from kvar.study.run.tasks import build_task

    settings = target.settings.evaluation
    return build_task(target.settings.task).examples(settings.eval_split, settings.eval_limit or None)
