"""Learning rates in proportion to the size of each tensor's weights."""

from __future__ import annotations

import torch

__all__ = ["scale_learning_rates"]


def scale_learning_rates(optimizer: torch.optim.Optimizer) -> None:
    """Put every tensor into its own group, with a learning rate scaled by the tensor's current RMS; in place.

    A tensor's rate is learning_rate * max(RMS(weights), 1e-3), the parameter scaling of Adafactor (Shazeer and Stern
    2018, arXiv 1804.04235) applied once: T5's embeddings start at RMS 1, its projections at 1/sqrt(width), and with one
    rate the embeddings learn too slowly. An optimizer of more than two groups is taken as scaled and not changed.
    """
    if len(optimizer.param_groups) > 2:
        return
    groups = [dict(group) for group in optimizer.param_groups]
    optimizer.param_groups.clear()
    for group in groups:
        for parameter in group.pop("params"):
            rms = float(parameter.detach().float().square().mean().sqrt())
            optimizer.add_param_group({**group, "params": [parameter], "lr": group["lr"] * max(rms, 1e-3)})
