"""The language-model head of a model, and the number of tokens it gives logits for."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["logit_width", "output_embedding"]


def output_embedding(model: Any) -> nn.Module | None:
    """``model.get_output_embeddings()`` if the model has that method and it returns another module; else None."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return head if isinstance(head, nn.Module) and head is not model else None


def logit_width(model: Any, *, config: bool = True) -> int | None:
    """V, the rows of the output embedding's matrix; else ``config.vocab_size``; None if neither is known.

    Args:
        model: any module.
        config: whether to read the config of a model without an output embedding.
    """
    weight = getattr(output_embedding(model), "weight", None)
    if weight is not None and weight.dim() == 2:
        return len(weight)
    return getattr(getattr(model, "config", None), "vocab_size", None) if config else None
