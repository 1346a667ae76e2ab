"""Gradient moments from their definition, by plain autograd one token at a time; token weights and groups to try."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kvar.gradients import GroupMoments
from kvar.rollouts import Rollouts, token_logits


def token_scores(model: nn.Module, data: Rollouts) -> dict[int, Tensor]:
    """id of each trained parameter -> (N, T, its size), grad log pi(y_t | s_t), every response in a pass of its own."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    n, t = data.tokens.shape
    scores = {id(p): torch.zeros(n, t, p.numel(), dtype=torch.float64) for p in parameters}
    for i, length in enumerate(data.lengths.tolist()):
        log_pi = token_logits(model, data[[i]]).log_softmax(-1)[0]
        for j in range(length):
            grads = torch.autograd.grad(log_pi[j, data.tokens[i, j]], parameters, retain_graph=True, allow_unused=True)
            for p, grad in zip(parameters, grads, strict=True):
                if grad is not None:
                    scores[id(p)][i, j] = grad.flatten()
    return scores


def moments(g: Tensor, prompt_index: Tensor, score_power: Tensor | None = None) -> GroupMoments:
    """Every field of gradients (E, N, P), as its docstring defines it."""
    mean = g.mean(dim=1)
    prompts = [g[:, prompt_index == p].mean(dim=1) for p in prompt_index.unique()]
    return GroupMoments(
        sq_norm=g.square().sum(dim=2),
        mean_pair=mean @ mean.T,
        alignment=torch.einsum("eip,ep->ei", g, mean),
        cross=torch.einsum("eip,fp->efi", g, mean),
        pair=torch.einsum("eip,fip->efi", g, g),
        prompt_pair=torch.stack([m @ m.T for m in prompts], dim=2),
        score_power=score_power,
    )


def true_moments(
    model: nn.Module, data: Rollouts, w: Tensor, groups: dict[str, list[nn.Parameter]]
) -> dict[str, GroupMoments]:
    """Group name -> moments of the estimators with token weights (E, N, T); the score power as well."""
    scores = token_scores(model, data)
    out = {}
    for name, parameters in groups.items():
        s = torch.cat([scores[id(p)] for p in parameters], dim=2)
        g = torch.einsum("ent,ntp->enp", w.double(), s)
        out[name] = moments(g, data.prompt_index, s.square().sum(dim=(1, 2)))
    return out


def weights(data: Rollouts, e: int = 3, dtype: torch.dtype = torch.float64, seed: int = 2) -> Tensor:
    """(E, N, T) random token weights, zero where masked."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(e, *data.tokens.shape, generator=generator).to(dtype).masked_fill(~data.mask, 0.0)


def as_callable(data: Rollouts, w: Tensor) -> Callable[[Tensor], Tensor]:
    """The token weights as a callable of the logits: (N, T, V) -> (E, N)."""

    def scalars(logits: Tensor) -> Tensor:
        picked = logits.log_softmax(-1).gather(-1, data.tokens[..., None])[..., 0]
        return torch.einsum("ent,nt->en", w, picked.masked_fill(~data.mask, 0.0))

    return scalars


def splits(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Groups that split the parameters and overlap."""
    every = [p for p in model.parameters() if p.requires_grad]
    return {
        "all": every,
        "odd": every[1::2],
        "third": every[::3],
        "vectors": [p for p in every if p.dim() == 1] or every[:1],
    }


def assert_close(
    ours: dict[str, GroupMoments], truth: dict[str, GroupMoments], tolerance: float, where: str = ""
) -> None:
    """Every field of every group within the tolerance, relative to the field as a whole."""
    assert set(ours) == set(truth)
    for group, expected in truth.items():
        for field, y in vars(expected).items():
            x = getattr(ours[group], field)
            assert (x is None) == (y is None), field
            if x is not None:
                assert (x.dtype, x.shape) == (torch.float64, y.shape), field
                error = float((x - y).norm() / y.norm().clamp(min=1e-300))
                assert error <= tolerance, f"{where} {group}.{field}: relative error {error:.2e} > {tolerance:.0e}"
