"""Measure the students of ``kvar study acting``: objectives and scores at checkpoints, gradients at the start.

    python -m figures.acting.measure runs/acting [--only translation] [--wait] [--gradients]

``points.json`` in a cell's folder has objectives, length, likelihood of the references and scores, sampled and greedy,
at its checkpoints. Seed 0, which chooses learning rates, is measured on 192 validation prompts that no probe uses;
every other seed on 192 test prompts of its own. With ``--gradients``, ``measured-STEP`` is a folder of
``Measurement.save`` with the cell's own estimator and the targets on the same trajectories. What is there is not
measured again; cells that have not finished are left out, or with ``--wait`` waited for.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from figures.estimators.measure import Ground
from kvar.analysis.proxies import w_proxy
from kvar.distill import load_model
from kvar.estimators import gather, parse_estimators
from kvar.measurement import Measurement, is_measurement
from kvar.records.study_folder import cell_parts, read_cells, run_state
from kvar.study.run.weights import weights_of

PROMPTS, ROLLOUTS = 192, 2
TUNING_SEED = 0
FREE = 4
"""Which 192 validation prompts the rates are chosen on: none of those that probes measure."""
STEPS = (50, 150, 450)
"""Checkpoints that are measured."""
TARGETS = "gap K=1 exact expected - leave-one-out, kl K=1 exact expected - leave-one-out, score - leave-one-out"
OWN = {
    "llmr": "K=1",
    "llmr-mean": "K=1 - batch-mean",
    "K=2": "K=2",
    "K=4": "K=4",
    "K=8": "K=8",
    "K=8-mean": "K=8 - batch-mean",
    "immediate": "gap immediate",
    "immediate-exact": "gap immediate exact",
    "exact-expected": "gap K=1 exact expected - position-mean",
    "kl-exact": "kl immediate exact",
    "kl-discount": "kl geometric(0.9) exact expected",
}
"""Method -> the estimator that it follows. The recipe clips and weighs, the references have ``data``, auto changes."""


def ground_of(values: dict[str, Any], folder: Path, seed: int) -> Ground:
    """Task, teacher and prompts of a cell."""
    fields = {key: value for key, value in values.items() if key != "from"}
    fields |= {"student": str(folder / "model"), "student_config": None}
    return Ground(fields, PROMPTS, "validation" if seed == TUNING_SEED else "test")


def place_of(seed: int) -> int:
    """Which 192 prompts of its split a seed is measured on."""
    return FREE if seed == TUNING_SEED else seed - 1


def points(ground: Ground, folder: Path, seed: int) -> None:
    """``points.json``: a list with one mapping of numbers a checkpoint, of the tuning seed the last alone."""
    (last, model), *_rest = weights_of(folder, None)
    steps = {last: model}
    if folder.parent.name != "start" and seed != TUNING_SEED:
        steps |= {step: path for step, path in weights_of(folder, "all") if step in STEPS}
    rows = [
        {"step": step, **ground.point(load_model(str(path)), place_of(seed), last=True)}
        for step, path in sorted(steps.items())
    ]
    (folder / "points.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


def gradients(ground: Ground, folder: Path, seed: int, step: int | None, estimators: str) -> None:
    """``measured-STEP``: the gradients of a checkpoint's weights, and verl's proxy of their power."""
    path = folder / "model" if step is None else dict(weights_of(folder, "all"))[step]
    student = load_model(str(path))
    measured = ground.measure(student, place_of(seed), estimators, ROLLOUTS)
    out = folder / f"measured-{step or 0}"
    proxies = proxies_of(ground, student, measured, place_of(seed), estimators)
    (folder / f"{out.name}.proxy.json").write_text(json.dumps(proxies, indent=1), encoding="utf-8")
    measured.save(out, overwrite=True)


def proxies_of(ground: Ground, student: Any, measured: Measurement, place: int, names: str) -> dict[str, float]:
    """Estimator -> verl's proxy of E|g|^2; of an exact sum, that of the same sampled."""
    wanted = parse_estimators(" ".join(names.split()))
    sampled = [e if e.immediate == "sampled" else parse_estimators(e.name.replace(" exact", ""))[0] for e in wanted]
    scored = ground.score(ground.held(place))
    rollouts = measured.rollouts
    options = {"score": scored, "estimators": sampled, "micro_batch": 64, "values": True}
    evidence = gather(student, ground.teacher, rollouts, **options)
    return {
        e.name: w_proxy(twin.coefficients(evidence)[0], evidence.logit_power, rollouts.mask).power
        for e, twin in zip(wanted, sampled, strict=True)
    }


def wanted_gradients(folder: Path, method: str) -> dict[int | None, str]:
    """Step -> estimators of the gradients that a cell should have; the step None is its last weights."""
    return {None: f"{', '.join(OWN.values())}, {TARGETS}"} if method == "start" else {}


def main() -> None:
    """Every finished cell, in the study's order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of kvar study acting")
    parser.add_argument("--only", nargs="+", default=[], help="parts of cells' names")
    parser.add_argument("--wait", action="store_true", help="go on until every begun cell is measured")
    parser.add_argument("--gradients", action="store_true", help="measure gradients too")
    args = parser.parse_args()
    grounds: dict[tuple[str, bool], Ground] = {}
    while True:
        waiting = 0
        for name, values in read_cells(args.runs).items():
            folder = args.runs / name
            if not all(part in name for part in args.only) or not folder.is_dir():
                continue
            if run_state(folder) != "done":
                waiting += 1
                continue
            task, _, method, number = cell_parts(name)
            seed = int(number or 0)

            def ground(
                key: tuple[str, bool] = (task, seed == TUNING_SEED),
                v: dict[str, Any] = values,
                f: Path = folder,
                s: int = seed,
            ) -> Ground:
                if key not in grounds:
                    grounds[key] = ground_of(v, f, s)
                return grounds[key]

            begun = time.perf_counter()
            if not (folder / "points.json").is_file():
                points(ground(), folder, seed)
                print(f"{name}: points in {time.perf_counter() - begun:.1f} s", flush=True)
            if args.gradients:
                for step, estimators in wanted_gradients(folder, method.partition("@")[0]).items():
                    if is_measurement(folder / f"measured-{step or 0}"):
                        continue
                    begun = time.perf_counter()
                    gradients(ground(), folder, seed, step, estimators)
                    print(f"{name}: gradients at {step or 0} in {time.perf_counter() - begun:.1f} s", flush=True)
        if not waiting or not args.wait:
            break
        time.sleep(5)


if __name__ == "__main__":
    main()
