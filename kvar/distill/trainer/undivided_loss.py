"""``UndividedLoss``: a Trainer that takes the gradient of its loss as it is, however a step is cut."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import DistributedType  # type: ignore[import-untyped]
from torch import Tensor, nn
from transformers import Trainer, __version__

from kvar.distill.trainer import TESTED
from kvar.rollouts.patching import replaced

__all__ = ["UndividedLoss"]


class UndividedLoss(Trainer):
    """A Trainer whose ``compute_loss`` returns a micro-batch's share of its step's loss, so that shares are summed.

    transformers divides the loss by the step's number of micro-batches, unless it counts as normalised over the whole
    step. With a ``compute_loss_func``, here the overridden method, it does so in each version tested; the attribute
    ``loss_is_scaled_for_ga`` says the same, but only 5.19 and newer read it. Where a step has several micro-batches,
    the gradient that arrives at the first one's loss is compared with 1 (or a loss scaler's scale), so that versions
    with another rule are noticed, such as 5.3, where accelerate divides as well. DeepSpeed scales by itself: there the
    loss alone is compared.

    Raises:
        ValueError: a ``compute_loss_func``, since it would not be called.
    """

    def __init__(self, *args: Any, compute_loss_func: Any = None, **kwargs: Any) -> None:
        if compute_loss_func is not None:
            raise ValueError("compute_loss_func is given, but the loss is that of args.objective: leave it out.")
        super().__init__(*args, **{**kwargs, "compute_loss_func": self.compute_loss})
        self.model_accepts_loss_kwargs = False
        self._undivided = False

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Transformers' forward and backward pass of one micro-batch.

        Raises:
            RuntimeError: the gradient was taken of another loss than ``compute_loss`` returned.
        """
        if self.args.gradient_accumulation_steps == 1 or self._undivided:
            return super().training_step(model, inputs, num_items_in_batch)
        losses: list[Tensor] = []
        arriving: list[Tensor] = []
        compute = self.compute_loss

        def watched(*given: Any, **options: Any) -> Any:
            loss: Any = compute(*given, **options)
            losses.append(loss.detach().mean())
            if self.accelerator.distributed_type != DistributedType.DEEPSPEED:
                loss.register_hook(lambda gradient: arriving.append(gradient.sum()))
            return loss

        with replaced(self, "compute_loss", watched):
            taken: Tensor = super().training_step(model, inputs, num_items_in_batch)
        scaler = self.accelerator.scaler
        scale = 1.0 if scaler is None else float(scaler.get_scale())
        same = torch.equal(taken.nan_to_num(), losses[0].to(taken).nan_to_num())
        if not same or any(float(gradient) != scale for gradient in arriving):
            raise RuntimeError(
                f"transformers {__version__} divides a micro-batch's loss, which is its share of the step's already: "
                f"set gradient_accumulation_steps 1, or install transformers {' to '.join(TESTED)}."
            )
        self._undivided = True
        return taken
