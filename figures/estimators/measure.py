"""Measure the students of ``kvar study estimators``: gradients at the ends, cheap numbers at every checkpoint.

    python -m figures.estimators.measure runs/estimators [--only seed-0] [--wait]

``RUNS/TASK/STUDENT/METHOD/seed-N/measured`` is a folder of ``Measurement.save`` with many estimators on the same
trajectories, the data's gradient among them: ``AT_START``, and ``AFTERWARDS`` for the methods in ``MEASURED``.
``points.json`` beside it has objectives, length, likelihood of the references and scores of the last weights, and of
the checkpoints of a method. What is there is not measured again; cells that have not finished are left out, or with
``--wait`` waited for.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import kvar
from kvar.distill import load_model, load_tokenizer
from kvar.evaluation import decode
from kvar.evaluation.evaluate import response_texts
from kvar.measurement import is_measurement
from kvar.records.study_folder import cell_parts, read_cells, run_state
from kvar.rollouts import Rollouts, log_probs, policy_of, references, sample, score
from kvar.study.run.tasks import build_task, fit_task
from kvar.study.run.weights import weights_of
from kvar.study.settings.reading import settings_from
from kvar.tasks import Example

AT_START = """
    K=1, K=2, K=4, K=8, immediate, K=1 - batch-mean, K=8 - batch-mean, K=1 - leave-one-out,
    gap immediate, gap immediate centred, gap immediate exact,
    gap K=4 free exact expected, gap geometric(0.9) exact expected, gap K=1 exact expected - leave-one-out,
    gap K=1 exact expected - batch-mean, kl immediate, kl immediate centred, kl immediate exact,
    kl geometric(0.9) exact expected, kl K=1 - leave-one-out, kl K=1 exact expected - leave-one-out,
    score - leave-one-out
"""
LOSSES = "jsd(0.5) immediate exact, forward-kl immediate exact, top-k(32) immediate exact, k3-loss immediate"
"""Measured at the start of the first seed of the small student, since each costs as much as five others."""
AFTERWARDS = """
    K=1, K=1 - batch-mean, K=8 - batch-mean, gap immediate, gap immediate exact, kl immediate exact,
    gap K=1 exact expected - leave-one-out, kl K=1 exact expected - leave-one-out, score - leave-one-out
"""
MEASURED = ("llmr", "K=8", "immediate-exact", "kl-exact")
"""The methods whose last weights have their gradients measured, for the small student; others have cheap numbers."""
SCORES = {"translation": "chrf", "summarisation": "rougeL"}
"""The score of one response, the densest that the task has."""


class Ground:
    """A task with its teacher and the prompts of a split; seeds are measured on disjoint ones."""

    def __init__(self, values: dict[str, Any], prompts: int, split: str = "validation") -> None:
        settings, training = settings_from({**values, "output_dir": "unused"}, "cell")
        self.tokenizer, self.teacher = load_tokenizer(settings.models.teacher), load_model(settings.models.teacher)
        self.task = fit_task(settings.task, build_task(settings.task), self.tokenizer, self.teacher)
        self.score_name = SCORES[settings.task.task]
        self.limit = training.max_new_tokens
        self.examples = self.task.examples(split)
        self.count = prompts

    def held(self, seed: int) -> list[Example]:
        """The seed's examples, by length, so that little is padded."""
        return sorted(self.examples[seed * self.count :][: self.count], key=lambda example: len(example.prompt))

    def score(self, examples: list[Example]) -> Callable[[Rollouts], list[float]]:
        """Rollouts -> the score of every response."""
        return lambda rollouts: self.task.example_scores(
            response_texts(rollouts, self.tokenizer),
            [examples[i] for i in rollouts.prompt_index.tolist()],
            self.score_name,
        )

    def measure(self, student: Any, seed: int, estimators: str, rollouts: int) -> kvar.Measurement:
        """Every estimator's gradient on one set of responses."""
        examples = self.held(seed)
        return kvar.measure(
            student,
            self.teacher,
            [example.prompt for example in examples],
            self.tokenizer,
            " ".join(estimators.split()),
            score=self.score(examples),
            references=[example.target for example in examples],
            rollouts_per_prompt=rollouts,
            max_new_tokens=self.limit,
            seed=seed,
            micro_batch=32,
        )

    @torch.no_grad()
    def point(self, student: Any, seed: int, last: bool) -> dict[str, float]:
        """Objectives, length, likelihood of the references and score, on the same prompts and random numbers.

        With ``last`` the scores of greedy responses too.
        """
        examples = self.held(seed)
        prompts, targets = [e.prompt for e in examples], [e.target for e in examples]
        policy = policy_of(student, self.tokenizer, teacher=self.teacher)
        drawn = sample(student, prompts, self.tokenizer, max_new_tokens=self.limit, seed=seed, policy=policy)
        log_ratio = log_probs(self.teacher, drawn) - drawn.log_probs
        written = references(prompts, targets, self.tokenizer, student, max_new_tokens=self.limit, policy=policy)
        likelihood = (log_probs(student, written) * written.mask).sum(dim=1).double()
        greedy = {}
        if last:
            greedy = self.task.metrics(
                decode(student, prompts, self.tokenizer, max_new_tokens=self.limit, batch=256), examples
            )
        tokens = float(written.mask.sum())
        return {
            "J": -float(score(self.teacher, drawn).gap.sum(dim=1).double().mean()),
            "J_kl": float((log_ratio * drawn.mask).sum(dim=1).double().mean()),
            "length": float(drawn.lengths.double().mean()),
            "finished": float(drawn.finished.double().mean()),
            "nll": float(-likelihood.sum() / tokens),
            "nll_response": float(-likelihood.mean()),
            "score": float(torch.tensor(self.score(examples)(drawn)).mean()),
            **{f"greedy_{name}": value for name, value in greedy.items()},
            "prompts": len(examples),
        }


def main() -> None:
    """Every finished cell, in the study's order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of kvar study estimators")
    parser.add_argument("--only", nargs="+", default=[], help="parts of cells' names")
    parser.add_argument("--prompts", type=int, default=192, help="prompts of a measurement")
    parser.add_argument("--rollouts", type=int, default=2, help="responses to each")
    parser.add_argument("--wait", action="store_true", help="go on until every cell is measured")
    parser.add_argument("--cheap-only", action="store_true", help="no gradients")
    args = parser.parse_args()
    cells = {
        name: values
        for name, values in sorted(read_cells(args.runs).items(), key=lambda item: cell_parts(item[0])[3] or "")
        if all(part in name for part in args.only)
    }
    grounds: dict[str, Ground] = {}
    while True:
        waiting = 0
        for name, values in cells.items():
            folder = args.runs / name
            if run_state(folder) != "done":
                waiting += 1
                continue
            task, seed = cell_parts(name)[0], int(cell_parts(name)[3] or 0)
            if task not in grounds:
                fields = {**values, "student": str(folder / "model"), "student_config": None}
                fields.pop("from", None)
                grounds[task] = Ground(fields, args.prompts)
            for what in _missing(folder, args.cheap_only):
                begun = time.perf_counter()
                what(grounds[task], folder, seed, args.rollouts)
                print(f"{name}: {what.__name__} in {time.perf_counter() - begun:.1f} s", flush=True)
        if not waiting or not args.wait:
            break
        time.sleep(5)
    print(f"{len(cells) - waiting} of {len(cells)} cells measured")


def _missing(folder: Path, cheap_only: bool) -> list[Callable[..., None]]:
    """What is not measured yet of a cell."""
    todo: list[Callable[..., None]] = []
    if not (folder / "points.json").is_file():
        todo.append(points)
    small = folder.parts[-3] == "small"
    measured = folder.parent.name == "start" or (small and folder.parent.name in MEASURED)
    if measured and not cheap_only and not is_measurement(folder / "measured"):
        todo.append(gradients)
    return todo


def points(ground: Ground, folder: Path, seed: int, _: int) -> None:
    """``points.json``: a list with one mapping of numbers a checkpoint, and the last weights'."""
    (last, model), *_rest = weights_of(folder, None)
    steps = {last: model}
    if folder.parent.name != "start":
        steps = {**dict(weights_of(folder, "all")), **steps}
    rows = [
        {"step": step, **ground.point(load_model(str(path)), seed, step == last)}
        for step, path in sorted(steps.items())
    ]
    (folder / "points.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


def gradients(ground: Ground, folder: Path, seed: int, rollouts: int) -> None:
    """``measured``: the gradients of the last weights."""
    (_, model), *_rest = weights_of(folder, None)
    after = folder.parent.name != "start"
    names = AFTERWARDS if after else AT_START
    if not after and seed == 0 and folder.parts[-3] == "small":
        names = f"{names.rstrip()}, {LOSSES}"
    ground.measure(load_model(str(model)), seed, names, rollouts).save(folder / "measured", overwrite=True)


if __name__ == "__main__":
    main()
