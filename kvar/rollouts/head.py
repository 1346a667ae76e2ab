"""A language model split at its output head, so that logits are computed for a few tokens at a time.

The hidden states before the head are V / D times smaller than the logits: T5-base with 32,128 tokens needs 42 times
less memory for them. It works for any architecture. One forward pass records the input of the output embedding, which
computes a single position; for every chunk the model's forward runs again, its other parts replaced by what they
returned before and the head applied to the chunk. The model thus computes whatever it does around its head (T5's
scaling, BART's bias, Gemma's soft cap, Cohere's scale). A trial against the plain forward pass detects models that
cannot be split like this, for which :func:`separable` is false.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from kvar.rollouts.forward import forward_inputs, token_logits
from kvar.rollouts.output_embedding import output_embedding
from kvar.rollouts.patching import replaced
from kvar.rollouts.types import Rollouts

__all__ = ["separable", "token_logit_chunks"]

_LEAST = -1e4
"""Below every finite logit of a model; the logits of tokens that are no actions are minus infinity."""
_SEPARABLE: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def token_logit_chunks(
    model: nn.Module, rollouts: Rollouts, max_logits: int
) -> Generator[tuple[tuple[Tensor, Tensor], Tensor], None, None]:
    """Logits of the unmasked response tokens, some tokens at a time; use each chunk before the next one.

    Args:
        model: a model that is :func:`separable`, in eval mode, under ``torch.no_grad``.
        rollouts: N responses of T tokens at most, on the model's device.
        max_logits: most logits of one chunk (at least one token's).

    Yields:
        (rows, positions), the C tokens' indices into (N, T), and their (C, V) logits, those of ``token_logits`` up to
        rounding.
    """
    head = output_embedding(model)
    assert head is not None
    inputs, align = forward_inputs(model, rollouts)
    seen: list[Tensor] = []
    with replaced(head, "forward", _first_position_only(head, seen)), ExitStack() as stack:
        parts = {part: _Recorder(part) for part in _siblings(model, head)}
        for part, recorder in parts.items():
            stack.enter_context(replaced(part, "forward", recorder))
        width = model(**inputs).logits.shape[-1]
    hidden = align(seen[0])
    rows, positions = rollouts.mask.nonzero(as_tuple=True)
    step = max(1, max_logits // width)
    with ExitStack() as stack:
        for part, recorder in parts.items():
            stack.enter_context(replaced(part, "forward", recorder.replay))
        for start in range(0, len(rows), step):
            where = rows[start : start + step], positions[start : start + step]
            with replaced(head, "forward", _of(head, hidden[where][None])):
                logits = model(**inputs).logits[0]
            if rollouts.policy is not None:
                logits = rollouts.policy.restricted(logits, where[1])
            yield where, logits


@torch.no_grad()
def separable(model: nn.Module, rollouts: Rollouts) -> bool:
    """Whether :func:`token_logit_chunks` gives the model's logits, tried on a few tokens once per model.

    Args:
        model: in eval mode.
        rollouts: at least one response; its first rows and tokens serve as the trial.
    """
    if model not in _SEPARABLE:
        _SEPARABLE[model] = output_embedding(model) is not None and _trial(model, rollouts)
    return _SEPARABLE[model]


def _trial(model: nn.Module, rollouts: Rollouts) -> bool:
    short = rollouts[:2].until(3)
    short = replace(short, mask=torch.ones_like(short.mask))
    expected = token_logits(model, short).clamp(min=_LEAST)
    try:
        chunks = list(token_logit_chunks(model, short, expected.shape[-1]))
    except Exception:  # a forward of another form, which is served by chunks of rows
        return False
    tolerance = 1e-4 if expected.dtype in (torch.float32, torch.float64) else 2e-2
    scale = float(expected[expected > _LEAST].abs().max())
    return all(
        bool(torch.allclose(logits.clamp(min=_LEAST), expected[where], rtol=0, atol=tolerance * (1 + scale)))
        for where, logits in chunks
    )


def _siblings(model: nn.Module, head: nn.Module) -> list[nn.Module]:
    """The other children of the module that holds the head: the rest of the model."""
    owner = next(module for module in model.modules() if any(child is head for child in module.children()))
    return [child for child in owner.children() if child is not head]


def _first_position_only(head: nn.Module, seen: list[Tensor]) -> Callable[..., Any]:
    original = head.forward

    def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        if seen or hidden.dim() != 3:
            raise RuntimeError("the head is called more than once, or not on (N, L, D).")
        seen.append(hidden)
        return original(hidden[:1, :1], *args, **kwargs)

    return forward


def _of(head: nn.Module, chunk: Tensor) -> Callable[..., Any]:
    original = head.forward
    return lambda hidden, *args, **kwargs: original(chunk, *args, **kwargs)


class _Recorder:
    """A module's forward that keeps its output, to return it again without computing.

    A part that is called more than once (T5's embedding, by encoder and decoder) keeps nothing and must not be called
    in the replay; it is not, if the parts that call it are replayed.
    """

    def __init__(self, module: nn.Module) -> None:
        self.original = module.forward
        self.calls = 0
        self.output: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self.original(*args, **kwargs)
        self.calls += 1
        self.output = output if self.calls == 1 else None
        return output

    def replay(self, *args: Any, **kwargs: Any) -> Any:
        if self.calls != 1:
            raise RuntimeError(f"a part of the model was called {self.calls} times, so its output is not known.")
        return self.output
