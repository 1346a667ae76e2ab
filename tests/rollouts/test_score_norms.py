"""Score norms of a model's sampled tokens against autograd on its output layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kvar.rollouts import log_probs, sample
from kvar.rollouts.score_norms import score_norms
from tests.cases import MODELS, ragged_prompts, tiny_t5


@pytest.mark.parametrize("name", MODELS)
def test_norms_are_those_of_the_head(name: str) -> None:
    """Tied or not, scaled (T5) or not: the head's weight is untied by a copy that autograd can tell apart."""
    model: Any = MODELS[name]().double()
    head = model.get_output_embeddings()
    rollouts = sample(
        model, ragged_prompts(vocab_size=15), rollouts_per_prompt=2, max_new_tokens=5, seed=1, vocabulary=15
    )
    found = score_norms(model, rollouts, vocabulary=15)
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    log_p = log_probs(model, rollouts, vocabulary=15)
    for i in range(len(rollouts)):
        for t in range(rollouts.tokens.shape[1]):
            if not rollouts.mask[i, t]:
                assert float(found[i, t]) == 0.0
                continue
            (score,) = torch.autograd.grad(log_p[i, t], head.weight, retain_graph=True)
            torch.testing.assert_close(found[i, t], score.square().sum(), rtol=1e-5, atol=0)


def test_rows_at_a_time_and_no_trace_left() -> None:
    model = tiny_t5().train()
    rollouts = sample(model, ragged_prompts(), rollouts_per_prompt=2, max_new_tokens=5, seed=1)
    whole = score_norms(model, rollouts)
    torch.testing.assert_close(score_norms(model, rollouts, max_logits=1), whole)
    assert model.training
    assert not model.get_output_embeddings()._forward_pre_hooks
    assert all(p.grad is None for p in model.parameters())


def test_a_model_without_an_output_embedding_is_refused() -> None:
    model = tiny_t5()
    rollouts = sample(model, ragged_prompts(), max_new_tokens=2, seed=1)
    with pytest.raises(ValueError, match="choose another baseline than minimum-variance"):
        score_norms(torch.nn.Linear(1, 1), rollouts)
