"""The released recipe's gradient at the start, on sampled and on greedy responses to the same prompts.

    python -m figures.acting.recipe runs/acting            # a minute a start; writes recipe.csv and recipe.md

Each of the 192 test prompts of a seed gets one response of each kind. The recipe's gradient of a response is
sum_t clip(pi_t G_t, 50) grad log pi_t / T with the 4-step return G (``preset: reference``). Noise is that of one
response: tr Cov and tr Cov / |E g|^2; a greedy response has none of its own, its trace is the spread over prompts. The
cosine is that of the two mean gradients, by products over two disjoint halves of the prompts.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from figures.acting.measure import TUNING_SEED, ground_of, place_of
from figures.estimators.cells import over
from figures.estimators.measure import Ground
from kvar.analysis import noise_scale, signal, trace_covariance
from kvar.distill import load_model
from kvar.distill.objectives.on_policy.reinforce import advantage_weights
from kvar.evaluation.evaluate import response_texts
from kvar.gradients import gradient_moments
from kvar.records.study_folder import cell_parts, read_cells, run_state
from kvar.returns import parse_kernel, returns
from kvar.rollouts import Rollouts, log_probs, policy_of, sample, score

HERE = Path(__file__).parent
RECIPE = SimpleNamespace(importance_weight="policy", importance_clip=None, return_scale=1.0, return_clip=50.0)
KINDS = {"sampled": 0, "greedy": 1}
"""Kind of response -> top_k."""


def weights(ground: Ground, student: Any, drawn: Rollouts) -> Tensor:
    """(1, N, T) clip(pi G, 50) / T."""
    values = score(ground.teacher, drawn)
    four_steps = returns(values, drawn.mask, [parse_kernel("K=4")])[0]
    with torch.no_grad():
        log_pi = log_probs(student, drawn)
    return (advantage_weights(four_steps, log_pi, drawn, RECIPE) / drawn.lengths[:, None])[None]  # type: ignore[arg-type]


def mean_gradient(student: Any, drawn: Rollouts, of_each: Tensor, rows: Tensor) -> Tensor:
    """The mean over some responses, by autograd."""
    part = drawn[rows]
    student.zero_grad()
    (of_each[0, rows] * log_probs(student, part)).masked_fill(~part.mask, 0.0).sum().div(len(part)).backward()
    return torch.cat([p.grad.flatten().double() for p in student.parameters() if p.grad is not None])


def row(ground: Ground, student: Any, seed: int) -> list[dict[str, Any]]:
    """The numbers of both kinds."""
    examples = ground.held(place_of(seed))
    policy = policy_of(student, ground.tokenizer, teacher=ground.teacher)
    found, halves = [], {}
    for kind, top_k in KINDS.items():
        prompts = [e.prompt for e in examples]
        options: dict[str, Any] = {"max_new_tokens": ground.limit, "seed": seed, "policy": policy, "top_k": top_k}
        drawn = sample(student, prompts, ground.tokenizer, **options)
        of_each = weights(ground, student, drawn)
        moments = gradient_moments(student, drawn, of_each, names=["recipe"], micro_batch=64)
        halves[kind] = [mean_gradient(student, drawn, of_each, torch.arange(i, len(drawn), 2)) for i in (0, 1)]
        gaps = score(ground.teacher, drawn).gap
        metrics = ground.task.metrics(response_texts(drawn, ground.tokenizer), examples)
        found.append(
            {
                "kind": kind,
                "length": float(drawn.lengths.double().mean()),
                "total_gap": float(gaps.sum(dim=1).mean()),
                "gap_per_token": float(gaps.sum() / drawn.mask.sum()),
                "score": metrics[ground.score_name],
                "weight": float(of_each.sum() / len(drawn)),
                "trace": float(trace_covariance(moments).value[0]),
                "signal": float(signal(moments).value[0]),
                "relative_variance": float(noise_scale(moments).value[0]),
            }
        )
    products = {
        (a, b): float(halves[a][0] @ halves[b][1] + halves[a][1] @ halves[b][0]) / 2 for a in KINDS for b in KINDS
    }
    across = np.sqrt(products["sampled", "sampled"] * products["greedy", "greedy"])
    return [{**each, "cosine": products["sampled", "greedy"] / across} for each in found]


def main() -> None:
    """Every finished start but that of the tuning seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", help="folder of kvar study acting; default the data beside")
    parser.add_argument("--output", type=Path, default=HERE)
    args = parser.parse_args()
    rows = []
    grounds: dict[str, Ground] = {}
    for name, values in read_cells(args.runs).items() if args.runs else ():
        (task, _, method, seed), folder = cell_parts(name), args.runs / name
        if method != "start" or int(seed or 0) == TUNING_SEED or run_state(folder) != "done":
            continue
        if task not in grounds:
            grounds[task] = ground_of(values, folder, int(seed or 0))
        student = load_model(str(folder / "model"))
        rows += [{"task": task, "seed": int(seed or 0), **each} for each in row(grounds[task], student, int(seed or 0))]
        print(name, flush=True)
    if args.runs:
        pd.DataFrame(rows).to_csv(args.output / "recipe.csv", index=False)
    data = pd.read_csv(args.output / "recipe.csv")
    lines = ["| task | | sampled | greedy | greedy less sampled | n |", "|---|---|---|---|---|---|"]
    for task, own in data.groupby("task"):
        by_kind = own.pivot(index="seed", columns="kind")
        for number in [c for c in data.columns if c not in ("task", "seed", "kind", "cosine")]:
            one, other = by_kind[number, "sampled"], by_kind[number, "greedy"]
            lines.append(f"| {task} | {number} | {over(one)} | {over(other)} | {over(other - one)} | {len(one)} |")
        lines.append(
            f"| {task} | cosine of the two mean gradients | {over(by_kind['cosine', 'greedy'])} | | | {len(own) // 2} |"
        )
    (args.output / "recipe.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
