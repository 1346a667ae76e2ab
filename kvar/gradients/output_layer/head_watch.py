"""Records inputs and outputs of the language-model head in a training step's forward pass, for its moments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kvar.estimators.terms import Terms
from kvar.gradients.moments import GroupMoments
from kvar.gradients.output_layer.head_moments import output_layer_moments, output_layer_pairs
from kvar.gradients.output_layer.head_norms import output_layer_norms
from kvar.gradients.state import unwrap
from kvar.rollouts import is_encoder_decoder
from kvar.rollouts.output_embedding import output_embedding
from kvar.rollouts.types import Rollouts

__all__ = ["HeadWatch"]


class HeadWatch:
    """Keeps the head's inputs and outputs of the last forward pass; a context manager that removes its hook.

    Logits are the model's, including a fixed bias after the head (BART's, Marian's).

    Args:
        student: a transformers model, plain, data-parallel or under FSDP2.
        head: its language-model head; default ``student.get_output_embeddings()``.
        training_only: record only forward passes in training mode with gradients on, not sampling and evaluation.

    Raises:
        ValueError: the student has no head or is compiled, or its logits are the head's output scaled or capped
            (checked in the config at once, and in the numbers at the first forward pass).
    """

    def __init__(self, student: nn.Module, head: nn.Module | None = None, *, training_only: bool = False) -> None:
        student = unwrap(student)
        self.seq2seq = is_encoder_decoder(student)
        self.head = _head_of(student) if head is None else head
        self.training_only = training_only
        self._seen: tuple[Tensor, Tensor] | None = None
        self._head: tuple[Tensor, Tensor] | None = None
        self._tried = False
        self._handles = (
            self.head.register_forward_hook(self._see_head),
            student.register_forward_hook(self._see_logits),
        )

    def _see_head(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if not self.training_only or (module.training and torch.is_grad_enabled()):
            self._head = (args[0].detach(), output.detach())

    def _see_logits(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._head is None:
            return
        (hidden, made), self._head = self._head, None
        logits = getattr(output, "logits", output)
        if not isinstance(logits, Tensor):
            return
        if not self._tried:
            _check_plain(made, logits.detach())
            self._tried = True
        self._seen = (hidden, logits.detach())

    @property
    def bias(self) -> bool:
        """Whether the head has a trainable bias, which is then part of the output layer."""
        bias = getattr(self.head, "bias", None)
        return isinstance(bias, Tensor) and bias.requires_grad

    def aligned(self, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """Hidden (N, T, p) and logits (N, T, V) that scored ``rollouts.tokens``, from the last forward pass.

        That pass must be one of kvar's over these rollouts (``kvar.rollouts.log_probs``, ``token_logits``): with rows
        in their order, a causal model's prompt and response packed to the left.

        Raises:
            ValueError: no forward pass was recorded, or one of another shape.
        """
        if self._seen is None:
            raise ValueError(
                "the head ran in no forward pass that counts: call log_probs(student, rollouts), with gradients and in "
                "training mode where only training is watched, before asking for its moments."
            )
        hidden, logits = self._seen
        n, t = rollouts.tokens.shape
        forced = len(rollouts.policy.forced) if self.seq2seq and rollouts.policy is not None else 0
        if forced:
            hidden, logits = hidden[:, forced:], logits[:, forced:]
        lengths = rollouts.prompt_mask.sum(dim=1)
        shortest, longest = (1, 1) if self.seq2seq else torch.stack(lengths.aminmax()).tolist()
        width = longest + t - 1  # what a pass over these rollouts reads, packed where it is a causal model's
        skipped = width - logits.shape[1] if logits.dim() == 3 else -1
        if len(logits) != n or not 0 <= skipped < shortest:
            raise ValueError(
                f"the last forward pass gave logits of shape {tuple(logits.shape)}, which are not kvar's pass over "
                f"{n} rollouts of {t} tokens: score them by kvar.rollouts.log_probs, or pass hidden and logits."
            )
        if self.seq2seq:
            return hidden, logits
        if shortest == longest:
            first = longest - 1 - skipped
            return hidden[:, first : first + t], logits[:, first : first + t]
        start = lengths - 1 - skipped
        where = torch.arange(n, device=start.device)[:, None] * logits.shape[1] + start[:, None]
        where = (where + torch.arange(t, device=start.device)).flatten()
        return tuple(x.flatten(0, 1).index_select(0, where).unflatten(0, (n, t)) for x in (hidden, logits))

    def moments(self, rollouts: Rollouts, weights: Tensor | Terms, *, vocabulary: int | None = None) -> GroupMoments:
        """The output layer's moments from the last forward pass, which is then forgotten.

        Args:
            rollouts: N trajectories, those of the pass.
            weights: (E, N, T) token weights, or terms.
            vocabulary: normalise over the first this many tokens at most; default the rollouts' action set.

        Returns:
            See :func:`kvar.gradients.output_layer.head_moments.output_layer_moments`.
        """
        rollouts = rollouts.over(vocabulary)
        hidden, logits = self.aligned(rollouts)
        self._seen = None
        return output_layer_moments(
            hidden,
            logits if rollouts.policy is None else rollouts.policy.restricted(logits),
            rollouts.tokens.masked_fill(~rollouts.mask, 0),
            rollouts.mask,
            weights,
            rollouts.prompt_index,
            bias=self.bias,
        )

    def norms(self, rollouts: Rollouts, weights: Tensor | Terms, *, vocabulary: int | None = None) -> Tensor:
        """(E, N): only the field ``sq_norm`` of ``moments``, at half the cost or less; the pass is then forgotten."""
        rollouts = rollouts.over(vocabulary)
        hidden, logits = self.aligned(rollouts)
        self._seen = None
        if isinstance(weights, Terms):
            tokens, policy = rollouts.tokens.masked_fill(~rollouts.mask, 0), rollouts.policy
            actions = logits if policy is None else policy.restricted(logits)
            pairs = output_layer_pairs(hidden, actions, tokens, rollouts.mask, weights, bias=self.bias)
            return pairs.diagonal(dim1=0, dim2=1).T
        return output_layer_norms(hidden, logits, rollouts, weights, bias=self.bias)

    def close(self) -> None:
        """Remove the hook and forget the recorded pass."""
        for handle in self._handles:
            handle.remove()
        self._seen = self._head = None

    def __enter__(self) -> HeadWatch:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _head_of(student: nn.Module) -> nn.Module:
    """The head of a transformers model whose logits are the head's plain output."""
    head = output_embedding(student)
    if head is None:
        raise ValueError(f"{type(student).__name__} names no output layer: pass head=, the module that makes logits.")
    config: Any = getattr(student, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise ValueError(
                f"config.{name} = {getattr(config, name)}: the logits are not the head's plain output, so its moments "
                "cannot be read off a forward pass. Use gradient_moments with groups={'output': head}."
            )
    return head


def _check_plain(made: Tensor, logits: Tensor) -> None:
    """Refuse logits that are not the head's output plus a constant over positions."""
    if made.shape == logits.shape:
        some = (slice(0, 2), slice(0, 4))
        added = (logits[some] - made[some]).double()
        scale = 1 + float(made[some].abs().max())
        tolerance = 1e-4 if made.dtype in (torch.float32, torch.float64) else 5e-2
        if bool(((added - added[:1, :1]).abs() <= tolerance * scale).all()):
            return
    raise ValueError(
        "the model's logits are not its head's output, plain or with a fixed bias, so the head's moments cannot be "
        "read off a forward pass. Use gradient_moments with groups={'output': head}."
    )
