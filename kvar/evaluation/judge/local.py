"""A transformers model as judge: the verdict is the one it gives the highest probability."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from kvar.evaluation.judge.question import Question
from kvar.evaluation.judge.verdict import Answer, JudgeError, Verdict
from kvar.rollouts import Policy, Rollouts, TextEncoder, encode_prompts, is_encoder_decoder, token_logits
from kvar.rollouts.decoding.draw import check_finite
from kvar.rollouts.modes import eval_mode
from kvar.rollouts.text.encoder import Prompt

__all__ = ["LocalJudge"]

VERDICTS: tuple[Verdict, ...] = ("A", "B", "tie")


class LocalJudge:
    """Compares the log-probabilities of "A", "B" and "tie" after the question; nothing is sampled.

    The chat template is used where the tokenizer has one, with thinking off where the template supports that. A verdict
    is read up to the first token that distinguishes it from the others, so a question takes one forward pass.

    Args:
        model: seq2seq or causal transformers model.
        tokenizer: its tokenizer, with a pad token.
        name: the judge's name in records.
        batch: questions per forward pass.
        least_mass: an answer is invalid where A, B and tie together are less probable than this.

    Raises:
        JudgeError: the tokenizer does not distinguish the verdicts.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, *, batch: int = 8, least_mass: float = 0.01) -> None:
        self.model, self.tokenizer, self.name, self.batch, self.least_mass = model, tokenizer, name, batch, least_mass
        self.chat = bool(getattr(tokenizer, "chat_template", None))
        special = {str(token) for token in getattr(tokenizer, "added_tokens_decoder", {}).values()}
        self.markers: Sequence[str] = tuple(special | set(tokenizer.all_special_tokens))
        self.paths = verdict_paths(tokenizer, space=not self.chat and not is_encoder_decoder(model))
        self.chain = max(self.paths, key=len)[:-1]

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[Question, Answer]]:
        """Each question with its answer, shortest questions first; a question that is too long is invalid."""
        longest = _longest(self.model)
        encoded = [(question, self._encode(question.text)) for question in questions]
        fitting = []
        for question, ids in encoded:
            if longest is not None and len(ids) + len(self.chain) + 1 > longest:
                yield question, Answer("invalid", f"question of {len(ids)} tokens; the judge takes {longest}")
            else:
                fitting.append((question, ids))
        fitting.sort(key=lambda item: len(item[1]))
        for start in range(0, len(fitting), self.batch):
            rows = fitting[start : start + self.batch]
            for (question, _), log_p in zip(rows, self._log_probs([ids for _, ids in rows]), strict=True):
                yield question, self._answer(log_p)

    def _encode(self, text: str) -> list[int]:
        prompt: Prompt = text if is_encoder_decoder(self.model) else f"{text}\nAnswer:"
        if self.chat:
            prompt = [{"role": "user", "content": text}]
        eos = self.tokenizer.eos_token_id
        ends = Policy(ends=() if eos is None else (eos,))
        return TextEncoder(self.tokenizer, self.model, ends, {"enable_thinking": False}).prompts([prompt])[0]

    @torch.no_grad()
    def _log_probs(self, prompts: list[list[int]]) -> torch.Tensor:
        """(N, 3) log-probabilities of the verdicts."""
        device = next(self.model.parameters()).device
        ids, mask = (x.to(device) for x in encode_prompts(prompts))
        n, t = len(prompts), len(self.chain) + 1
        tokens = torch.tensor(max(self.paths, key=len), device=device).expand(n, t)
        with eval_mode(self.model):
            logits = token_logits(self.model, Rollouts.of_tokens(ids, mask, tokens)).float()
        check_finite(logits.amax(dim=-1).sum(dim=1))
        log_p = logits.log_softmax(dim=-1).cpu()
        return torch.stack([log_p[:, range(len(path)), path].sum(dim=1) for path in self.paths], dim=1)

    def _answer(self, log_p: torch.Tensor) -> Answer:
        text = ", ".join(f"{verdict} {p:.4f}" for verdict, p in zip(VERDICTS, log_p.exp().tolist(), strict=True))
        if not bool(torch.isfinite(log_p).any()) or float(log_p.exp().sum()) < self.least_mass:
            return Answer("invalid", f"no verdict is probable: {text}")
        best = (log_p == log_p.max()).nonzero()[:, 0].tolist()
        return Answer(VERDICTS[best[0]] if len(best) == 1 else "tie", text)


def verdict_paths(tokenizer: Any, space: bool) -> list[list[int]]:
    """The tokens of A, B and tie, each up to the first that distinguishes it from the two others.

    All three paths branch off one chain of tokens, the longest path without its last token.

    Raises:
        JudgeError: a verdict is unknown to the tokenizer, or is the beginning of another.
    """
    spelled = [list(tokenizer(f"{' ' * space}{v}", add_special_tokens=False)["input_ids"]) for v in VERDICTS]
    paths = []
    for ids in spelled:
        others = [other for other in spelled if other is not ids]
        shared = max(_shared(ids, other) for other in others)
        paths.append(ids[: shared + 1])
        if len(ids) <= shared or tokenizer.unk_token_id in ids:
            raise JudgeError(
                f"the judge's tokenizer does not distinguish A, B and tie: {spelled}; choose another judge."
            )
    return paths


def _shared(one: list[int], other: list[int]) -> int:
    """The length of two lists' common beginning."""
    differing = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _longest(model: Any) -> int | None:
    """The model's number of positions; None where it has no such limit (T5)."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return int(limit) if limit else None
