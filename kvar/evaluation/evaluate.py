"""Greedy or beam decoding of a task's examples, scored by the task's metrics and the teacher's values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from kvar.evaluation.beam import beam_search
from kvar.returns import Kernel, KStep, returns
from kvar.rollouts import Policy, Prompts, Rollouts, encode_prompts, is_encoder_decoder, policy_of, score
from kvar.rollouts.forward import pack_left
from kvar.tasks import CorpusScore, mean_score, ratio_score, values_of

if TYPE_CHECKING:
    from kvar.tasks import Example, Task

__all__ = ["Evaluation", "decode", "decode_rollouts", "evaluate", "response_texts"]


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model on one split, with the texts they were computed from.

    Attributes:
        scores: name -> score, as sums over the examples in order (``kvar.evaluation.bootstrap`` resamples them).
        texts: the responses.
        responses: name -> one number per response: length, finished and, with a teacher, total_gap and every kernel's
            return.
    """

    scores: dict[str, CorpusScore]
    texts: list[str]
    responses: dict[str, list[float]]

    @property
    def metrics(self) -> dict[str, float]:
        """The value of every score."""
        return values_of(self.scores)


def decode_rollouts(
    model: Any,
    prompts: Prompts,
    tokenizer: Any,
    *,
    max_new_tokens: int,
    num_beams: int = 1,
    batch: int = 64,
    calculator: tuple[str, str] | None = None,
    policy: Policy | None = None,
) -> Iterator[Rollouts]:
    """Responses by greedy search (``num_beams`` 1) or beam search, in batches of prompts of similar length.

    The model's generation defaults (penalties, length limits) are ignored.

    Args:
        model: seq2seq or causal.
        prompts: M prompts, in any form that ``kvar.rollouts.encode_prompts`` takes.
        tokenizer: the model's.
        max_new_tokens: length limit; responses that reach it are cut, ``finished`` false.
        num_beams: beams.
        batch: prompts decoded together.
        calculator: marks of calculations whose results are forced, such as ("<<", ">>"); None for none.
        policy: default that of model and tokenizer.

    Yields:
        Rollouts with the prompts' numbers in ``prompt_index``; ``log_probs`` are zero, as nothing is sampled.

    Raises:
        ValueError: no prompts, ``num_beams`` or ``batch`` below 1, or a tokenizer that cannot write the marks.
    """
    for name, given in (("num_beams", num_beams), ("batch", batch)):
        if given < 1:
            raise ValueError(f"{name} must be at least 1; got {given}.")
    policy = policy_of(model, tokenizer) if policy is None else policy
    every, kept = encode_prompts(prompts, tokenizer, model, policy=policy)
    lengths = kept.sum(dim=1).tolist()
    order = sorted(range(len(every)), key=lambda i: lengths[i])
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        ids, mask = pack_left(every[rows], kept[rows])
        processors = []
        if calculator is not None:
            from kvar.evaluation.calculator_logits import Calculator

            start = 1 + len(policy.forced) if is_encoder_decoder(model) else ids.shape[1]
            processors.append(Calculator(tokenizer, start, calculator, policy.ends))
        limits: dict[str, Any] = {"beams": num_beams, "max_new_tokens": max_new_tokens}
        responses = beam_search(model, ids, mask, tokenizer, processors=processors, policy=policy, **limits)
        tokens, drawn = encode_prompts(responses)
        tokens = tokens.masked_fill(~drawn, tokenizer.pad_token_id)
        yield Rollouts.of_tokens(ids, mask, tokens, drawn, prompt_index=torch.tensor(rows), policy=policy)


def decode(
    model: Any,
    prompts: Prompts,
    tokenizer: Any,
    *,
    max_new_tokens: int,
    num_beams: int = 1,
    batch: int = 64,
    calculator: tuple[str, str] | None = None,
) -> list[str]:
    """The texts of :func:`decode_rollouts`, in the prompts' order."""
    texts: dict[int, str] = {}
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "num_beams": num_beams, "batch": batch}
    for rollouts in decode_rollouts(model, prompts, tokenizer, calculator=calculator, **options):
        texts.update(zip(rollouts.prompt_index.tolist(), response_texts(rollouts, tokenizer), strict=True))
    return [texts[i] for i in sorted(texts)]


def evaluate(
    model: nn.Module,
    task: Task,
    examples: Sequence[Example],
    tokenizer: Any,
    *,
    max_new_tokens: int,
    num_beams: int = 1,
    batch: int = 64,
    calculator: bool = False,
    teacher: nn.Module | None = None,
    kernels: Sequence[Kernel] = (),
    centre: Literal["mean", "logsumexp", "none"] = "mean",
    value: Literal["max", "soft"] = "max",
) -> Evaluation:
    """Decode ``examples`` and score them by the task's metrics, their lengths, and the teacher's values.

    Args:
        model: the student.
        task: gives the metrics.
        examples: prompts with their references.
        tokenizer: of student and teacher.
        max_new_tokens: length limit.
        num_beams: 1 is greedy.
        batch: prompts decoded together.
        calculator: force the results of calculations between the task's marks.
        teacher: scores the decoded tokens; None for no returns.
        kernels: the return kernels reported beside K=1.
        centre: c(s) of the teacher's logits.
        value: V(s), hard or soft.

    Returns:
        Scores: the task's; length, response tokens with end-of-sequence; finished, the share of responses that ended
        before the limit; with a teacher "return K=1", the mean over responses of G_1^(1) = V_1 - sum_t gap_t (theory.md
        (2); the paper's return curve), and every other kernel's G_1; total_gap, the mean of sum_t gap_t; and
        gap_per_token, all gaps over all tokens.

    Raises:
        ValueError: no examples, a calculator asked of a task without calculation marks, or one that its tokenizer
            cannot write.
    """
    if not all(hasattr(example, "prompt") for example in examples):  # such as a single text
        kind = type(examples).__name__
        raise ValueError(f"examples must be a list of examples, each with prompt and target; got {kind}.")
    marks = task.calculator_marks if calculator else None
    if calculator and marks is None:
        raise ValueError(f"task {task.name!r} has no calculation marks; set calculator to false.")
    named = {kernel.name: kernel for kernel in (KStep(1), *kernels)}  # K=1: its first return is the whole reward
    texts = [""] * len(examples)
    measured: dict[str, list[float]] = {}
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "num_beams": num_beams, "batch": batch}
    prompts = [example.prompt for example in examples]
    policy = policy_of(model, tokenizer, teacher=teacher)
    for rollouts in decode_rollouts(model, prompts, tokenizer, calculator=marks, policy=policy, **options):
        columns = {"length": rollouts.lengths.float(), "finished": rollouts.finished.float()}
        if teacher is not None:
            values = score(teacher, rollouts, centre=centre, value=value)
            columns["total_gap"] = values.gap.sum(dim=1)
            first = returns(values, rollouts.mask, list(named.values()))[:, :, 0]
            columns.update({f"return {name}": row for name, row in zip(named, first, strict=True)})
        for i, text in zip(rollouts.prompt_index.tolist(), response_texts(rollouts, tokenizer), strict=True):
            texts[i] = text
        for name, column in columns.items():
            target = measured.setdefault(name, [0.0] * len(examples))
            for i, number in zip(rollouts.prompt_index.tolist(), column.tolist(), strict=True):
                target[i] = number
    scores = dict(task.scores(texts, examples))
    for name, numbers in measured.items():
        scores[name] = mean_score(numbers, share=name == "finished")
    if teacher is not None:
        scores["gap_per_token"] = ratio_score(measured["total_gap"], measured["length"])
    return Evaluation(scores, texts, measured)


def response_texts(rollouts: Rollouts, tokenizer: Any) -> list[str]:
    """The responses' texts, without end tokens and special tokens."""
    ends = rollouts.policy.ends if rollouts.policy is not None else ()
    rows = [row[kept].tolist() for row, kept in zip(rollouts.tokens, rollouts.mask, strict=True)]
    rows = [row[:-1] if row and row[-1] in ends else row for row in rows]
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]
