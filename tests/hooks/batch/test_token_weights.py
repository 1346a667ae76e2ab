"""Gradients at the logits are told apart: a weight a token times its score, or something else."""

from __future__ import annotations

import pytest
import torch

from kvar.hooks.batch.token_weights import TokenScores


@pytest.mark.parametrize("scale", [0.1, 8.0])
def test_weights_are_found_and_nothing_else_is(scale: float) -> None:
    torch.manual_seed(0)
    logits = (scale * torch.randn(3, 5, 200)).requires_grad_()
    tokens, weights = torch.randint(200, (3, 5)), torch.randn(3, 5)
    weights[0, 2] = 0.0
    log_pi = logits.log_softmax(dim=-1)
    chosen = log_pi.gather(-1, tokens[..., None])[..., 0]
    entropy = -(log_pi.exp() * log_pi).sum(dim=-1)
    (policy,) = torch.autograd.grad((weights * chosen).sum(), logits, retain_graph=True)
    (bonus,) = torch.autograd.grad(1e-2 * entropy.sum(), logits)
    before = torch.get_rng_state()
    scores = TokenScores(log_pi.detach(), tokens)
    assert torch.equal(before, torch.get_rng_state())
    recovered = scores.weights(policy)
    assert recovered is not None
    torch.testing.assert_close(recovered, weights, rtol=1e-5, atol=1e-6)
    assert scores.weights(policy + bonus) is None
    assert torch.equal(scores.weights(torch.zeros_like(policy)), torch.zeros(3, 5))  # type: ignore[arg-type]
