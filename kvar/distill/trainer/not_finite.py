"""The error message of a loss or gradient that is not finite."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import Any

__all__ = ["not_finite"]

SHOWN_PROMPTS = 8
CHARACTERS = 60


def not_finite(what: str, step: int, inputs: Sequence[dict[str, Any]], tokenizer: Any) -> str:
    """The message: ``what`` (such as ``"loss is nan"``), the step, and the examples with their prompts, shortened."""
    index = [i for batch in inputs for i in batch["index"].tolist()]
    prompts = [
        tokenizer.decode(ids[mask], skip_special_tokens=True)
        for batch in inputs
        for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"].bool(), strict=True)
    ]
    lines = [
        f"  {i}: {shorten(text, CHARACTERS, placeholder='...')}"
        for i, text in list(zip(index, prompts, strict=True))[:SHOWN_PROMPTS]
    ]
    if len(prompts) > SHOWN_PROMPTS:
        lines.append(f"  and {len(prompts) - SHOWN_PROMPTS} more")
    return (
        f"{what} at step {step}; training stops, the last checkpoint is unchanged. Lower learning_rate, or set "
        "max_grad_norm or return_clip; T5 models need bf16 or fp32. Examples of the batch, with their prompts:\n"
        + "\n".join(lines)
    )
