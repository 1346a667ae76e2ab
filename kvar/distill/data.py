"""From a task's examples to padded batches of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kvar.rollouts import Policy, Rollouts
from kvar.tasks import Example

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Collator", "build_dataset", "reference_rollouts"]


def build_dataset(
    examples: Sequence[Example],
    tokenizer: Any,
    *,
    max_target_tokens: int | None = None,
    max_prompt_tokens: int | None = None,
) -> Dataset:
    """Tokenise examples into a data set with columns prompt, target (ids), index, length and prompt_length.

    Args:
        examples: prompts and references.
        tokenizer: tokenizer of student and teacher; the prompt is encoded as it encodes a text, end-of-sequence is put
            behind the target where the tokenizer does not do so itself.
        max_target_tokens: longer targets are cut there (without end-of-sequence).
        max_prompt_tokens: longest prompt allowed.

    Raises:
        ValueError: no examples, an empty prompt, or a prompt longer than ``max_prompt_tokens``.
    """
    from datasets import Dataset

    if not examples:
        raise ValueError("the data set is empty: the task gave no examples for this split.")
    prompts = tokenizer([example.prompt for example in examples])["input_ids"]
    targets = tokenizer(text_target=[example.target for example in examples])["input_ids"]
    eos = tokenizer.eos_token_id
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"example {row} has an empty prompt; every prompt needs at least one token.")
        if max_prompt_tokens is not None and len(prompt) > max_prompt_tokens:
            raise ValueError(
                f"example {row} has a prompt of {len(prompt)} tokens, more than max_prompt_tokens={max_prompt_tokens}. "
                "Raise max_prompt_tokens or shorten the prompt."
            )
    targets = [ids if ids and ids[-1] == eos else [*ids, eos] for ids in targets]
    if max_target_tokens is not None:
        targets = [ids[:max_target_tokens] for ids in targets]
    lengths = [len(p) + len(t) for p, t in zip(prompts, targets, strict=True)]
    columns = {"prompt": prompts, "target": targets, "index": list(range(len(prompts))), "length": lengths}
    columns["prompt_length"] = [len(prompt) for prompt in prompts]
    return Dataset.from_dict(columns)


@dataclass
class Collator:
    """Pad rows of :func:`build_dataset` on the right: prompt_ids, prompt_mask, tokens, mask, index."""

    pad_token_id: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Batch of ``len(rows)`` examples as int64 and bool tensors."""
        prompt_ids, prompt_mask = self._pad([row["prompt"] for row in rows])
        tokens, mask = self._pad([row["target"] for row in rows])
        index = torch.tensor([row["index"] for row in rows])
        return {"prompt_ids": prompt_ids, "prompt_mask": prompt_mask, "tokens": tokens, "mask": mask, "index": index}

    def _pad(self, lists: list[list[int]]) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([len(ids) for ids in lists])
        mask = torch.arange(max(int(lengths.max()), 1)) < lengths[:, None]
        out = torch.full(mask.shape, self.pad_token_id)
        out[mask] = torch.tensor([token for ids in lists for token in ids])
        return out, mask


def reference_rollouts(batch: dict[str, Tensor], policy: Policy) -> Rollouts:
    """The batch's reference targets in the form of rollouts, so that one forward pass serves both."""
    tokens, mask = batch["tokens"], batch["mask"]
    return Rollouts(
        prompt_ids=batch["prompt_ids"],
        prompt_mask=batch["prompt_mask"],
        tokens=tokens,
        mask=mask,
        finished=(policy.is_end(tokens) & mask).any(dim=1),
        prompt_index=batch["index"],
        log_probs=torch.zeros(tokens.shape, device=tokens.device),
        policy=policy,
    )
