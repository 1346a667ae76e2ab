"""Score norms at the output layer, in closed form and by autograd."""

from __future__ import annotations

import torch

from kvar.returns.score_norms import output_layer_score_norms


def test_closed_form_is_the_squared_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    head = torch.randn(7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(7, (2, 3), generator=generator)
    logits = hidden @ head.T
    found = output_layer_score_norms(hidden, logits.detach(), tokens)
    log_p = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    for i in range(2):
        for t in range(3):
            (score,) = torch.autograd.grad(log_p[i, t], head, retain_graph=True)
            torch.testing.assert_close(found[i, t], score.square().sum(), rtol=1e-12, atol=0)


def test_by_hand() -> None:
    """|h|^2 = 25, pi = (1/2, 1/4, 1/4), y = 1: (1/4 + 9/16 + 1/16) 25."""
    logits = torch.tensor([0.5, 0.25, 0.25]).log()
    assert float(output_layer_score_norms(torch.tensor([3.0, 4.0]), logits, torch.tensor(1))) == 25 * 0.875
