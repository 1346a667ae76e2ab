"""Batches, and slow objectives: one response, one token, one vocabulary entry at a time, from their definitions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kvar.distill import DistillationConfig
from kvar.distill.objectives import Batch, Passes, Source, count
from kvar.returns import parse_kernel, returns
from kvar.rollouts import Rollouts, sample, score, token_logits
from tests.cases import ragged_prompts, tiny_gpt2, tiny_t5
from tests.returns.returns_reference import k_step

VOCABULARY = 15
"""Of the tokenizer; the models have 17 logits."""


def config(**changes: Any) -> DistillationConfig:
    return DistillationConfig(output_dir="unused", use_cpu=True, report_to="none", **changes)


def models(family: str) -> tuple[Any, Any]:
    """Student and teacher in float64; what their logits say of padding of the vocabulary is far off."""
    make = {"t5": tiny_t5, "gpt2": tiny_gpt2}[family]
    pair = make(seed=0).double(), make(seed=1).double()
    for model in pair:
        with torch.no_grad():
            model.get_output_embeddings().weight[VOCABULARY:] += 50.0
            model.get_output_embeddings().weight[:VOCABULARY] *= 3.0  # far from uniform
    return pair


def responses(student: Any, teacher: Any) -> dict[Source, Rollouts]:
    """Responses of different lengths from every source; two of the student's to each of three prompts."""
    prompts = ragged_prompts(vocab_size=VOCABULARY)
    drawn: dict[Source, Rollouts] = {
        "data": sample(teacher, prompts, max_new_tokens=5, seed=4, temperature=3.0, vocabulary=VOCABULARY),
        "student": sample(student, prompts, rollouts_per_prompt=2, max_new_tokens=7, seed=3, vocabulary=VOCABULARY),
        "teacher": sample(teacher, prompts, max_new_tokens=6, seed=9, vocabulary=VOCABULARY),
    }
    return {source: _cut(rollouts) for source, rollouts in drawn.items()}


def _cut(rollouts: Rollouts) -> Rollouts:
    """Rows of lengths that differ: the length limit came at another place for each."""
    longest = torch.tensor([5, 2, 4, 7, 1, 3])[: len(rollouts)]
    mask = rollouts.mask & (torch.arange(rollouts.tokens.shape[1]) < longest[:, None])
    finished = rollouts.finished & (mask == rollouts.mask).all(dim=1)
    return replace(
        rollouts,
        tokens=rollouts.tokens.masked_fill(~mask, 0),
        mask=mask,
        finished=finished,
        log_probs=rollouts.log_probs.masked_fill(~mask, 0.0),
    )


def batch_of(
    found: dict[Source, Rollouts], teacher: Any, settings: DistillationConfig, *, on_policy: bool = False
) -> Batch:
    """A batch that is a step of its own."""
    own = found["student"]
    values = score(teacher, own, centre=settings.centre, value=settings.value, vocabulary=VOCABULARY)
    advantages, exact = {}, {}
    for name, e in settings.mixture.estimators(settings).items():
        advantages[name] = returns(values, own.mask, [e.kernel], baseline=e.baseline, prompt_index=own.prompt_index)[0]
        if e.exact_alone:
            advantages[name], exact[name] = torch.zeros_like(advantages[name]), own.mask.double()
    counts = {source: count(rollouts.mask) for source, rollouts in found.items()}
    return Batch(found, counts, values, advantages, exact, on_policy=on_policy)


def loss_of(student: Any, teacher: Any, batch: Batch, settings: DistillationConfig) -> Tensor:
    return settings.mixture.loss(Passes(student, teacher, batch, settings), settings)[0]


def gradient(model: torch.nn.Module, loss: Tensor) -> Tensor:
    parameters = list(model.parameters())
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, grads, strict=True)]
    )


def unpadded(rollouts: Rollouts) -> Iterator[Rollouts]:
    """Each response alone, without any padding."""
    for i in range(len(rollouts)):
        row = rollouts[[i]]
        prompt, length = int(row.prompt_mask.sum()), int(row.lengths)
        yield Rollouts(
            row.prompt_ids[:, :prompt], row.prompt_mask[:, :prompt], row.tokens[:, :length], row.mask[:, :length],
            row.finished, row.prompt_index, row.log_probs[:, :length],
        )  # fmt: skip


def slow(name: str, student: Any, teacher: Any, found: dict[Source, Rollouts], **options: Any) -> Tensor:
    """The objective's token mean; ``options``: beta, kernel, source."""

    def distribution(model: Any, row: Rollouts) -> list[list[Tensor]]:
        logits = token_logits(model, row)[0, :, :VOCABULARY]
        out = []
        for position in logits:
            weights = [x.exp() for x in position]
            total = sum(weights)
            out.append([w / total for w in weights])
        return out

    def kl(a: list[Tensor], b: list[Tensor]) -> Tensor:
        return sum((x * (x.log() - y.log()) for x, y in zip(a, b, strict=True)), torch.zeros(()))

    def mix(a: list[Tensor], b: list[Tensor], beta: float) -> list[Tensor]:
        return [beta * x + (1 - beta) * y for x, y in zip(a, b, strict=True)]

    def mean(source: Source, value: Any) -> Tensor:
        total, tokens = torch.zeros(()), 0
        for row in unpadded(found[source]):
            q = distribution(student, row)
            with torch.no_grad():
                p = distribution(teacher, row)
            for t in range(len(q)):
                total = total + value(p[t], q[t], row, t)
                tokens += 1
        return total / tokens

    def nll(p: list[Tensor], q: list[Tensor], row: Rollouts, t: int) -> Tensor:
        return -q[int(row.tokens[0, t])].log()

    def tv(p: list[Tensor], q: list[Tensor], *_: Any) -> Tensor:
        return sum(((x - y).abs() for x, y in zip(p, q, strict=True)), torch.zeros(())) / 2

    def jsd(p: list[Tensor], q: list[Tensor], *_: Any) -> Tensor:
        m = mix(p, q, options["beta"])
        return options["beta"] * kl(p, m) + (1 - options["beta"]) * kl(q, m)

    def reinforce(p: list[Tensor], q: list[Tensor], row: Rollouts, t: int) -> Tensor:
        with torch.no_grad():
            logits = token_logits(teacher, row)[0, :, :VOCABULARY]
        chosen = [float(f[int(y)] - f.mean()) for f, y in zip(logits, row.tokens[0], strict=True)]
        best = [float(f.max() - f.mean()) for f in logits]
        kernel = parse_kernel(options["kernel"])
        g = k_step(chosen, best, kernel.k, kernel.terminal)[t]  # type: ignore[attr-defined]
        y = int(row.tokens[0, t])
        rho = float(q[y].detach()) / math.exp(float(row.log_probs[0, t]))
        return -rho * g * q[y].log()

    if name == "sft":
        return mean("data", nll)
    if name == "seqkd":
        return mean("teacher", nll)
    if name == "kl":
        return mean(options.get("source", "data"), lambda p, q, *_: kl(p, q))
    if name == "reverse-kl":
        return mean(options.get("source", "student"), lambda p, q, *_: kl(q, p))
    if name == "js":
        off = options.get("source", "teacher")
        ours = mean("student", lambda p, q, *_: kl(q, mix(p, q, 0.5)))
        return ours / 2 + mean(off, lambda p, q, *_: kl(p, mix(p, q, 0.5))) / 2
    if name == "tvd":
        return mean("student", tv) / 2 + mean(options.get("source", "teacher"), tv) / 2
    if name == "gkd":
        return mean(options.get("source", "data"), jsd)
    return mean("student", reinforce)
