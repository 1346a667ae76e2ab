"""Coverage of the intervals of ``toward`` on enumerable token MDPs.

A design draws prompts, R responses and a reference to each. Every batch of R responses to a prompt is enumerated, also
for baselines formed from the other rollouts, so that means and variances of a step are sums without sampling error.
``python -m tests.analysis.target_coverage [REPEATS] [PROMPTS ...]`` prints the table of docs/theory.md, section 9.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kvar.analysis import bias, toward
from kvar.analysis.exact import TokenMDP, moments_of
from kvar.analysis.exact.estimators import table_evidence
from kvar.analysis.exact.moments import row_gradients
from kvar.estimators import Estimator, Evidence, NextTokenReward, Score, parse_estimators
from kvar.gradients import GradientMoments
from kvar.rollouts import Rollouts

TEXT = (
    "K=1, K=2 free, kl immediate exact, gap K=1 exact expected - leave-one-out, kl K=1 exact expected, "
    "score - leave-one-out"
)
TARGETS = ("J", "J_kl", "score", "data")
BATCH = 64


@dataclass(frozen=True)
class Design:
    """A token MDP, R, and how near the data's and the score's directions are to the teacher's.

    Attributes:
        vocabulary: V.
        horizon: H.
        prompts: of the MDP, from which prompts are drawn.
        rollouts: R.
        state: of the student's table.
        seed: of all tables.
        aligned: weight of the teacher in the references' logits and in the score; the rest is random.
        policy_scale: standard deviation of the student's logits.
    """

    vocabulary: int
    horizon: int
    prompts: int
    rollouts: int
    state: str
    seed: int
    aligned: float
    policy_scale: float = 1.0


DESIGNS = {
    "many prompts": Design(3, 3, 12, 2, "last-token", 0, 1.0),
    "long": Design(2, 7, 4, 3, "last-token", 1, 1.0),
    "unrelated targets": Design(4, 2, 6, 2, "last-token", 2, 0.0),
    "four rollouts": Design(2, 4, 5, 4, "last-token", 3, 0.7),
    "a row a prefix": Design(3, 3, 2, 2, "prefix", 4, 0.7),
    "peaked policy": Design(3, 4, 4, 2, "last-token", 5, 0.3, 2.0),
}


@dataclass(frozen=True)
class Tables:
    """Every batch of R responses to a prompt, and every reference, with gradients.

    Attributes:
        names: the estimators, "data" last.
        gradients: (E, B, R, P) of the sampled ones.
        chances: (prompts, B / prompts) of each batch, given its prompt.
        data: (L, P).
        data_chances: (prompts, L / prompts) of each reference, given its prompt.
    """

    names: tuple[str, ...]
    gradients: Tensor
    chances: np.ndarray
    data: Tensor
    data_chances: np.ndarray


@cache
def tables(name: str) -> Tables:
    """The tables of a design."""
    d = DESIGNS[name]
    mdp = TokenMDP(d.vocabulary, d.horizon, d.seed, d.prompts, d.state, policy_scale=d.policy_scale)
    rollouts, values = mdp.responses()
    generator = torch.Generator().manual_seed(100 + d.seed)
    each = len(rollouts) // d.prompts
    luck = torch.randn(len(rollouts), generator=generator, dtype=torch.float64)
    score = d.aligned * values.q.sum(dim=1) + (1 - d.aligned) * luck

    def scored(some: Rollouts) -> Tensor:
        return score[some.log_probs[:, 0].long()]  # the responses are numbered there, see ``numbered``

    rows, policy = mdp.table_rows(rollouts), mdp.policy
    states = rollouts.prompt_index[:, None] * int(mdp.tree.offsets[-1]) + mdp.tree.prefix_ids(rollouts.tokens)
    noise = torch.randn(mdp.teacher.shape, generator=generator, dtype=torch.float64)
    written = (d.aligned * mdp.teacher + (1 - d.aligned) * noise).log_softmax(dim=-1)[states, rollouts.tokens]
    written = written.masked_fill(~rollouts.mask, 0.0).sum(dim=1).exp().view(d.prompts, -1).numpy()
    single = (mdp.probabilities * d.prompts).view(d.prompts, -1)
    batches = torch.cat(
        [torch.cartesian_prod(*[torch.arange(each) + m * each] * d.rollouts) for m in range(d.prompts)]
    ).view(-1, d.rollouts)
    chances = single.flatten()[batches].prod(dim=1).view(d.prompts, -1).numpy()
    numbered = replace(rollouts, log_probs=torch.arange(len(rollouts)).double()[:, None].expand(rollouts.mask.shape))
    parts, names = [], []
    for estimator in parse_estimators(TEXT):
        if isinstance(estimator.reward, Score):
            estimator = replace(estimator, reward=Score(scored))
            evidence = replace(
                table_evidence(mdp, None), rollouts=numbered, sampled={"score": estimator.reward.sampled(numbered)}
            )
        else:
            evidence = table_evidence(mdp, estimator.reward)
        parts.append(_of_batches(mdp, estimator, evidence, batches, rows, policy).view(*batches.shape, -1))
        names.append(estimator.name)
    return Tables(
        (*names, "data"), torch.stack(parts), chances,
        row_gradients(rollouts.mask.double(), rows, rollouts.tokens, policy), written,
    )  # fmt: skip


def _of_batches(
    mdp: TokenMDP, estimator: Estimator, evidence: Evidence, batches: Tensor, rows: Tensor, policy: Tensor
) -> Tensor:
    """(B R, P): the gradient of each response within each batch."""
    at = batches.flatten()
    prompt = torch.arange(len(batches)).repeat_interleave(batches.shape[1])
    assert evidence.values is not None
    some = replace(
        evidence,
        rollouts=replace(evidence.rollouts[at], prompt_index=prompt),
        sampled={k: u[at] for k, u in evidence.sampled.items()},
        expected={k: u[at] for k, u in evidence.expected.items()},
        log_probs=evidence.log_probs[at], logit_power=evidence.logit_power[at], values=evidence.values[at],
        score_norms=None,
    )  # fmt: skip
    weights, exact = estimator.coefficients(some)
    g = row_gradients(weights, rows[at], evidence.rollouts.tokens[at], policy)
    if bool(exact.any()):
        rollouts = evidence.rollouts
        states = rollouts.prompt_index[:, None] * int(mdp.tree.offsets[-1]) + mdp.tree.prefix_ids(rollouts.tokens)
        assert isinstance(estimator.reward, NextTokenReward)
        u, pi = estimator.reward.table(mdp.teacher[states], policy[rows].log()), policy[rows]
        flow = (pi * (u - (pi * u).sum(dim=-1, keepdim=True))).masked_fill(~rollouts.mask[..., None], 0.0)
        out = torch.zeros(len(rollouts), *policy.shape, dtype=torch.float64)
        out.index_put_((torch.arange(len(rollouts))[:, None].expand_as(rows), rows), flow, accumulate=True)
        g = g + out.flatten(1)[at]
    return g


def truth(name: str, rollouts_per_prompt: int = 1) -> tuple[dict[tuple[str, str], float], ...]:
    """(target, estimator) -> the efficiency of a step of ``BATCH``, the bias, and |E g - g*|^2."""
    t = tables(name)
    p = torch.from_numpy(t.chances / len(t.chances)).flatten()
    q = torch.from_numpy(t.data_chances / len(t.data_chances)).flatten()
    mean = torch.cat([torch.einsum("b,ebrp->ep", p, t.gradients) / t.gradients.shape[2], (q @ t.data)[None]])
    single = torch.einsum("b,ebrp,ebrp->e", p, t.gradients, t.gradients) / t.gradients.shape[2]
    second = torch.cat([single, (q @ t.data.square().sum(dim=1))[None]])
    inner, power = mean @ mean.T, (mean**2).sum(dim=1)
    noise = (second - power) / BATCH
    if rollouts_per_prompt > 1:  # of whole batches of R
        whole = torch.einsum("b,ebp,ebp->e", p, *[t.gradients.mean(dim=2)] * 2) - power[:-1]
        noise = torch.cat([whole * rollouts_per_prompt / BATCH, torch.tensor([np.nan])])
    efficiency, off, distance = {}, {}, {}
    for target, number in zip(TARGETS, (3, 4, 5, 6), strict=True):
        for e, estimator in enumerate(t.names):
            c = inner[e, number] / (power[e] * power[number]).sqrt()
            step = inner[e, number] / ((power[e] + noise[e]) * power[number]).sqrt()
            efficiency[target, estimator] = float(step * step.abs())
            off[target, estimator] = float(1 - c * c.abs())
            distance[target, estimator] = float(power[e] - 2 * inner[e, number] + power[number])
    return efficiency, off, distance


def draw(name: str, prompts: int, rng: np.random.Generator) -> GradientMoments:
    """The moments of a measurement of ``prompts`` prompts."""
    t = tables(name)
    m = rng.integers(len(t.chances), size=prompts)
    batch = m * t.chances.shape[1] + _pick(t.chances[m], rng)
    reference = m * t.data_chances.shape[1] + _pick(t.data_chances[m], rng)
    e, r = len(t.names), t.gradients.shape[2]
    g = torch.zeros(e, prompts * (r + 1), t.data.shape[1], dtype=torch.float64)
    g[:-1, : prompts * r] = t.gradients[:, batch].flatten(1, 2)
    g[-1, prompts * r :] = t.data[reference]
    on = torch.zeros(g.shape[:2], dtype=torch.bool)
    on[:-1, : prompts * r], on[-1, prompts * r :] = True, True
    index = torch.arange(prompts)
    plain = moments_of(g, torch.cat([index.repeat_interleave(r), index]), t.names)
    return GradientMoments(plain.names, plain.groups, plain.prompt_index, on)


def _pick(chances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column of each row, by its probabilities."""
    return np.minimum((chances.cumsum(axis=1) < rng.random(len(chances))[:, None]).sum(axis=1), chances.shape[1] - 1)


def coverage(name: str, prompts: int, repeats: int, seed: int = 0) -> dict[str, np.ndarray]:
    """How often each interval of the four targets holds the truth, over the draws that resolve the target.

    Returns:
        "efficiency", "bias" and "distance" (|E g - E g*|^2): (4, E) shares; "exact": (4, E) bool, whether the bias is
        exactly 0; "wrong": (4, E) shares of draws whose verdict, "toward" or "away", is the opposite of the truth;
        "resolved": (4,) shares of draws.
    """
    efficiency, off, distance = (
        np.array([[of[target, e] for e in tables(name).names] for target in TARGETS]) for of in truth(name)
    )
    hits = {key: np.zeros(off.shape) for key in ("efficiency", "bias", "distance", "wrong")}
    resolved = np.zeros(len(TARGETS))
    rng = np.random.default_rng(seed)
    for _ in range(repeats):
        moments = draw(name, prompts, rng)
        table = toward(moments, TARGETS, BATCH)
        resolved += list(table.attrs["resolved"].values())

        def column(head: str, of: pd.DataFrame = table) -> np.ndarray:
            return of[head].to_numpy().reshape(off.shape)

        for key, true in (("efficiency", efficiency), ("bias", off)):
            hits[key] += (column(f"{key}_low") <= true + 1e-9) & (true - 1e-9 <= column(f"{key}_high"))
        told = np.where(column("leads") == "toward", 1, np.where(column("leads") == "away", -1, 0))
        hits["wrong"] += told * np.sign(efficiency) < 0
        for row, reference in enumerate(table["reference"].unique()):
            found = bias(moments, reference=reference)
            hits["distance"][row] += (found.low <= distance[row] + 1e-12) & (distance[row] - 1e-12 <= found.high)
    shares = {key: hits[key] / np.maximum(resolved, 1)[:, None] for key in ("efficiency", "bias")}
    shares |= {key: hits[key] / repeats for key in ("distance", "wrong")}
    return {**shares, "resolved": resolved / repeats, "exact": np.abs(off) < 1e-12}


def main(repeats: int = 1000, sizes: Sequence[int] = (64, 256, 1024)) -> None:
    """Print the table."""
    print("| design | prompts | target | resolved | efficiency | bias | squared distance | wrong sign |")
    print("|---|---|---|---|---|---|---|---|")
    for name in DESIGNS:
        for prompts in sizes:
            found = coverage(name, prompts, repeats)
            for row, target in enumerate(TARGETS):
                ranges = []
                for key in ("efficiency", "bias", "distance"):
                    shares = 100 * found[key][row][~found["exact"][row] | (key == "efficiency")]
                    ranges.append(f"{shares.min():.0f} to {shares.max():.0f}")
                wrong = 100 * found["wrong"][row].max()
                known = 100 * found["resolved"][row]
                print(
                    f"| {name} | {prompts} | {target} | {known:.0f} | {' | '.join(ranges)} | {wrong:.1f} |", flush=True
                )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *([[int(n) for n in sys.argv[2:]]] if sys.argv[2:] else []))
