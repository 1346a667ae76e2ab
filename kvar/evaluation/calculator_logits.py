"""A calculator during decoding: after ``<<48/2=`` the result and ``>>`` are forced."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from kvar.tasks import calculate, open_mark

__all__ = ["Calculator"]

WINDOW = 96  # tokens decoded to look for an open mark; an expression of MAX_LENGTH characters fits


class Calculator(LogitsProcessor):
    """A transformers logits processor that forces the result of every calculation that a response opens.

    It is stateless: each step reads the text of each row, so beams may be reordered. The result is spelled by the
    tokens that the tokenizer would choose after the text so far, if they decode to it; else by the longest that do.
    Text without a value (``kvar.tasks.calculate``), or a wrong first digit in one token with the "=", is left to the
    model.

    Args:
        tokenizer: the model's.
        start: tokens before the response: 1 plus the forced ones for an encoder-decoder, the padded prompt's width for
            a causal model.
        marks: opening and closing mark of a calculation.
        ends: tokens after which nothing is forced; default the tokenizer's end-of-sequence.

    Raises:
        ValueError: the tokenizer cannot write the marks (T5's has no "<").
    """

    def __init__(
        self, tokenizer: Any, start: int, marks: tuple[str, str] = ("<<", ">>"), ends: tuple[int, ...] | None = None
    ) -> None:
        self.tokenizer, self.start, self.marks = tokenizer, start, marks
        self.ends = (tokenizer.eos_token_id,) if ends is None else ends
        probe = f"{marks[0]}1+1=2{marks[1]}"
        if probe not in self._decode(tokenizer(probe, add_special_tokens=False)["input_ids"]):
            raise ValueError(
                f"the tokenizer cannot write the calculator's marks {marks[0]} and {marks[1]} (it reads {probe!r} back "
                f"as {self._decode(tokenizer(probe, add_special_tokens=False)['input_ids'])!r}). Set calculator_marks "
                "to two that it knows, such as '[[ ]]', or calculator to false."
            )
        self._spellers: dict[str, list[int]] | None = None
        self._spelt: dict[int, str] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (N, V) of the next token; in rows inside a calculation, -inf for all tokens but the forced one."""
        forced = {row: self._forced(ids[-WINDOW:]) for row, ids in enumerate(input_ids[:, self.start :].tolist())}
        chosen = {row: token for row, token in forced.items() if token is not None and token < scores.shape[1]}
        if not chosen:
            return scores
        scores = scores.clone()
        for row, token in chosen.items():
            scores[row] = -torch.inf
            scores[row, token] = 0.0
        return scores

    def _forced(self, ids: list[int]) -> int | None:
        if not ids or ids[-1] in (*self.ends, self.tokenizer.pad_token_id):
            return None
        if open_mark("".join(self._spelling(token) for token in ids), *self.marks) is None:  # cheap first check
            return None
        text = self._decode(ids)
        mark = open_mark(text, *self.marks)
        if mark is None:
            return None
        result = calculate(mark[0])
        whole = None if result is None else result + self.marks[1]
        if whole is None or not whole.startswith(mark[1]):
            return None
        return self._next_token(ids, text, whole[len(mark[1]) :])

    def _next_token(self, ids: list[int], text: str, rest: str) -> int | None:
        """The next token, one that continues ``text`` with a beginning of ``rest``."""
        for candidate in (*self._own_choice(text, rest), *self._longest(rest)):
            longer = self._decode([*ids, candidate])
            added = longer[len(text) :]
            if longer.startswith(text) and added and rest.startswith(added):
                return candidate
        return None

    def _own_choice(self, text: str, rest: str) -> list[int]:
        """The tokenizer's next token after the mark's text so far, where a token ends exactly there."""
        tail = text[text.rindex(self.marks[0]) :]
        ids = self.tokenizer(tail + rest, add_special_tokens=False)["input_ids"]
        for place in range(1, len(ids)):
            if self._decode(ids[:place]).lstrip() == tail:
                return [ids[place]]
        return []

    def _longest(self, rest: str) -> list[int]:
        """All tokens that spell a beginning of ``rest``, longest first."""
        if self._spellers is None:
            allowed = set("0123456789.-" + self.marks[1])
            self._spellers = {}
            for token in range(len(self.tokenizer)):
                spelt = self._decode([token]).strip()
                if spelt and set(spelt) <= allowed:
                    self._spellers.setdefault(spelt, []).append(token)
        return [t for size in range(len(rest), 0, -1) for t in self._spellers.get(rest[:size], ())]

    def _spelling(self, token: int) -> str:
        """A token's text on its own; blanks, which marks do not have, may be lost."""
        if token not in self._spelt:
            self._spelt[token] = self._decode([token])
        return self._spelt[token]

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
