"""The teacher's responses, decoded at a prompt's first use and cached.

Each is also written to a file, so that later epochs and resumed runs see the same responses in whatever batches their
prompts come.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kvar.evaluation.beam import beam_search
from kvar.rollouts import Rollouts, policy_of, sample
from kvar.rollouts.padding import pad_right
from kvar.rollouts.seeds import stream_seed

__all__ = ["TeacherResponses"]


class TeacherResponses:
    """Responses of a teacher by prompt.

    Args:
        teacher: a frozen model.
        tokenizer: its tokenizer.
        beams: beams of the search; 0 samples one response, determined by the prompt and ``seed``.
        max_new_tokens: length limit.
        temperature: of sampling.
        top_k: of sampling.
        seed: of sampling.
        folder: of the files; None keeps responses in memory only.
        process: this process's number: it writes ``teacher-responses-<process>.jsonl`` and reads the files of all.
    """

    def __init__(
        self,
        teacher: nn.Module,
        tokenizer: Any,
        *,
        beams: int,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
        folder: str | Path | None = None,
        process: int = 0,
    ) -> None:
        self.teacher, self.tokenizer = teacher, tokenizer
        self.beams, self.max_new_tokens = beams, max_new_tokens
        self.temperature, self.top_k, self.seed = temperature, top_k, seed
        self.folder = None if folder is None else Path(folder)
        self.name = f"teacher-responses-{process}.jsonl"
        self.decoded = 0
        self._kept: dict[str, list[int]] = {}
        self._loaded = False

    def __call__(self, prompt_ids: Tensor, prompt_mask: Tensor, index: Tensor) -> Rollouts:
        """The responses to N prompts.

        Args:
            prompt_ids: (N, S).
            prompt_mask: (N, S) bool.
            index: (N,), the result's ``prompt_index``.
        """
        if not self._loaded:
            self._load()
        prompts = [ids[mask].tolist() for ids, mask in zip(prompt_ids, prompt_mask, strict=True)]
        keys = [sha1(" ".join(map(str, prompt)).encode()).hexdigest()[:16] for prompt in prompts]
        missing = list({key: row for row, key in enumerate(keys) if key not in self._kept}.items())
        if missing:
            rows = [row for _, row in missing]
            made = self._decode(prompt_ids[rows], prompt_mask[rows], [key for key, _ in missing])
            self._keep({key: tokens for (key, _), tokens in zip(missing, made, strict=True)})
        return self._rollouts(prompt_ids, prompt_mask, index, [self._kept[key] for key in keys])

    def _decode(self, prompt_ids: Tensor, prompt_mask: Tensor, keys: Sequence[str]) -> list[list[int]]:
        self.decoded += len(keys)
        if self.beams:
            limits: dict[str, Any] = {"beams": self.beams, "max_new_tokens": self.max_new_tokens}
            return beam_search(self.teacher, prompt_ids, prompt_mask, self.tokenizer, **limits)
        drawn = sample(
            self.teacher,
            (prompt_ids, prompt_mask),
            self.tokenizer,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            seed=[stream_seed(self.seed, int(key, 16)) for key in keys],
        )
        return [tokens[mask].tolist() for tokens, mask in zip(drawn.tokens, drawn.mask, strict=True)]

    def _rollouts(self, prompt_ids: Tensor, prompt_mask: Tensor, index: Tensor, responses: list[list[int]]) -> Rollouts:
        tokens, mask = (x.to(prompt_ids.device) for x in pad_right(responses, self.tokenizer.pad_token_id))
        policy = policy_of(self.teacher, self.tokenizer)
        return Rollouts.of_tokens(prompt_ids, prompt_mask, tokens, mask, prompt_index=index, policy=policy)

    def _fingerprint(self) -> dict[str, Any]:
        """What the responses depend on; files with another fingerprint are not read."""
        with torch.no_grad():
            sums = [f"{float(p.double().sum()):.6g}" for p in self.teacher.parameters()]
        made: dict[str, Any] = {"beams": self.beams, "max_new_tokens": self.max_new_tokens}
        if not self.beams:
            made |= {"temperature": self.temperature, "top_k": self.top_k, "seed": self.seed}
        return {**made, "teacher": sha1(" ".join(sums).encode()).hexdigest()[:16]}

    def _load(self) -> None:
        self._loaded = True
        if self.folder is None:
            return
        header = json.dumps(self._fingerprint())
        for path in sorted(self.folder.glob("teacher-responses-*.jsonl")):
            lines = path.read_text(encoding="utf-8").split("\n")
            if lines[0] == header:
                for line in lines[1:-1]:  # the last is empty or incomplete
                    key, tokens = json.loads(line)
                    self._kept[key] = tokens
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = (self.folder / self.name).with_suffix(".part")
        fresh.write_text("\n".join([header, *map(json.dumps, self._kept.items()), ""]), encoding="utf-8")
        fresh.replace(self.folder / self.name)

    def _keep(self, made: dict[str, list[int]]) -> None:
        self._kept.update(made)
        if self.folder is not None:
            with (self.folder / self.name).open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(entry) + "\n" for entry in made.items()))
