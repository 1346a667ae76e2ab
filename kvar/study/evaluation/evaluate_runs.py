"""``kvar evaluate``: decode, score and bootstrap one model, or two on the same examples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.records.place import check_file_place
from kvar.study.evaluation.output import write_comparison, write_result
from kvar.study.evaluation.table import difference_table, score_table
from kvar.study.evaluation.target import Target

if TYPE_CHECKING:
    from kvar.distill import Evaluation
    from kvar.intervals import Interval
    from kvar.tasks import Example

__all__ = ["Options", "Result", "check_same_examples", "compare_results", "evaluate_command", "evaluate_target"]


@dataclass(frozen=True)
class Options:
    """How an evaluation is done, beside the run's own settings.

    Attributes:
        batch: prompts decoded together.
        teacher: whether the teacher scores the responses.
        resamples: bootstrap resamples.
        seed: seed of the resampling.
        level: confidence level.

    Raises:
        ValueError: a setting out of range.
    """

    batch: int = 64
    teacher: bool = True
    resamples: int = 1000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        for name in ("batch", "resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie between 0 and 1, such as 0.95; got {self.level}.")


@dataclass(frozen=True)
class Result:
    """One model's evaluation.

    Attributes:
        target: what was evaluated.
        examples: prompts and references.
        evaluation: scores, texts and what was measured on every response.
        scores: every score with its interval.
        options: how.
    """

    target: Target
    examples: list[Example]
    evaluation: Evaluation
    scores: dict[str, Interval]
    options: Options


def evaluate_target(target: Target, options: Options = Options()) -> Result:
    """Decode the target's split greedily or by beam search and score it.

    Args:
        target: what ``kvar.study.evaluation.target.find_target`` gave.
        options: how.

    Raises:
        ValueError: something named cannot be loaded, a missing split, bad rows.
    """
    import torch

    from kvar.distill import evaluate
    from kvar.evaluation.bootstrap import intervals
    from kvar.hooks import parse_estimators
    from kvar.study.run.build import assemble
    from kvar.study.run.prompt_lengths import check_prompts

    settings, training = target.settings, target.training
    kernels = [estimator.kernel for estimator in parse_estimators(target.kernels)]
    parts = assemble(settings, training.seed)
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
    found = intervals(evaluation.scores, resamples=options.resamples, seed=options.seed, level=options.level)
    return Result(target, examples, evaluation, found, options)


def compare_results(first: Result, second: Result) -> dict[str, Interval]:
    """Second less first of every score that both have, paired by example.

    Raises:
        ValueError: they were evaluated on different examples.
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
    """Refuse to compare two models on different examples; each is given as a name and its examples.

    Raises:
        ValueError: they differ.
    """
    (name, ours), (other, theirs) = first, second
    if ours != theirs:
        rows = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b]
        where = f"example {rows[0]} differs" if rows else f"{len(ours)} and {len(theirs)} examples"
        raise ValueError(
            f"{name} and {other} have different examples ({where}): a paired comparison needs the same. Give both the "
            "same task, data, prefix, split and limit."
        )


def evaluate_command(arguments: Any, overrides: list[str]) -> str:
    """The text that ``kvar evaluate`` prints; see its ``--help``.

    Raises:
        ValueError: bad input; the message names it.
    """
    from kvar.study.evaluation.target import find_target

    options = Options(
        arguments.batch, not arguments.no_teacher, arguments.resamples, arguments.bootstrap_seed, arguments.level
    )
    words = list(overrides)
    for name in ("split", "limit", "beams"):
        if getattr(arguments, name) is not None:
            words += [f"--eval_{name}", str(getattr(arguments, name))]
    if len(arguments.targets) > 2:
        raise ValueError(f"evaluate takes one target, or two to compare; got {len(arguments.targets)}.")
    given = {"checkpoint": arguments.checkpoint, "model": arguments.model, "kernels": arguments.kernels}
    targets = [find_target(name, words, teacher=options.teacher, **given) for name in arguments.targets]
    if len(targets) == 2:  # before the work
        check_same_examples(*((target.name, _examples(target)) for target in targets))
    for path in [Path(arguments.output)] if arguments.output else [target.default_output() for target in targets]:
        check_file_place(path, "output")
    lines, results = [], []
    for number, target in enumerate(targets):
        print(f"{target.name}: {target.describe()}", flush=True)
        result = evaluate_target(target, options)
        results.append(result)
        own = number == 0 and len(targets) == 1 and arguments.output
        lines += [score_table(result), *write_result(result, Path(own) if own else target.default_output()), ""]
    if len(results) == 2:
        found = compare_results(*results)
        lines.append(difference_table(results[0], results[1], found))
        path = Path(arguments.output) if arguments.output else results[1].target.comparison_output(results[0].target)
        write_comparison(results[0], results[1], found, path)
        lines.append(f"written: {path}")
    return "\n".join(lines).rstrip()


def _examples(target: Target) -> list[Example]:
    from kvar.study.run.tasks import build_task

    return build_task(target.settings).examples(target.settings.eval_split, target.settings.eval_limit or None)
