"""Batches of GRPO and RLOO: the loss is a function of log-probabilities and entropies that a fused head gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kvar.gradients.state import unwrap
from kvar.hooks.batch.kind import BatchKind, seen
from kvar.hooks.batch.part import Caught, Part, token_rows

__all__ = ["GRPOBatch"]


class GRPOBatch(BatchKind):
    """TRL's ``GRPOTrainer``, with any of its losses, clips, ratios, KL and entropy terms and normalisations."""

    trainers = ("GRPOTrainer",)
    scores = "advantages"

    def check(self, trainer: Any) -> None:
        """See :class:`BatchKind`."""
        if getattr(trainer, "aux_loss_enabled", False):
            raise ValueError(
                f"{type(trainer).__name__} adds the router's load-balancing loss, which is no sum over trajectories: "
                "set model.config.output_router_logits=False."
            )

    def has_behaviour(self, trainer: Any) -> bool:
        """True: where the batch holds no old log-probabilities, the student itself drew the tokens."""
        return True

    def whole_groups(self, trainer: Any) -> bool:
        """Whether one step trains on all that was generated together."""
        steps = trainer.args.gradient_accumulation_steps
        return getattr(trainer.args, "steps_per_generation", steps) in (None, steps)

    @contextmanager
    def catching(self, trainer: Any, inputs: Mapping[str, Any], caught: Caught) -> Iterator[None]:
        """See :class:`BatchKind`."""

        def see(output: Any) -> None:
            if not torch.is_grad_enabled():
                return
            caught.passes += 1
            caught.values["log_probs"] = caught.of_tokens(output.log_probs)
            caught.watch("log_probs", output.log_probs)
            if output.entropy is not None:
                caught.watch("entropy", output.entropy)

        with seen(unwrap(trainer.model), see):
            yield

    def part(self, trainer: Any, inputs: Mapping[str, Any], caught: Caught, ends: tuple[int, ...]) -> Part:
        """See :class:`BatchKind`."""
        rollouts, temperature = caught.rollouts(ends), self.temperature(trainer)
        log_probs = caught.values["log_probs"]
        weights, entropy = (caught.grads.get(name) for name in ("log_probs", "entropy"))
        weights = torch.zeros_like(log_probs) if weights is None else weights
        if entropy is not None and not bool(entropy.any()):
            entropy = None
        plain = temperature == 1 and entropy is None
        return Part(
            rollouts,
            weights=weights if plain else None,
            rows=None if plain else token_rows(rollouts.tokens, weights, entropy, temperature),
            scores=self.score_of(inputs),
            log_probs=log_probs,
            temperature=temperature,
            empty=entropy is None and not bool(weights.any()),
        ).drawn_with(self.behaviour(inputs, caught))

    def behaviour(self, inputs: Mapping[str, Any], caught: Caught) -> Tensor | None:
        """(B, T) log-probabilities of the policy that drew the tokens: the sampler's, the old ones or the student's."""
        for key in ("sampling_per_token_logps", "old_per_token_logps"):
            if key in inputs:
                return caught.of_tokens(inputs[key])
        return caught.values["log_probs"]
