"""Sampling: what it reports is what a fresh forward pass says, and its flags are the ones used."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kvar.rollouts import Rollouts, log_probs, sample, token_logits
from tests.cases import MODELS, ragged_prompts, tiny_bart, tiny_gpt2, tiny_llama, tiny_t5


@pytest.mark.parametrize("name", MODELS)
def test_reported_log_probs_equal_a_fresh_forward_pass(name: str) -> None:
    model = MODELS[name]()
    rollouts = sample(model, ragged_prompts(), rollouts_per_prompt=4, max_new_tokens=9, seed=1)
    assert len(rollouts) == 12
    assert not rollouts.finished.all()  # cut and finished responses both occur
    fresh = log_probs(model, rollouts)
    torch.testing.assert_close(fresh.detach(), rollouts.log_probs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_padding_of_prompts_changes_nothing(name: str) -> None:
    model = MODELS[name]()
    rollouts = sample(model, ragged_prompts(), rollouts_per_prompt=2, max_new_tokens=6, seed=2)
    together = log_probs(model, rollouts)
    for i in range(len(rollouts)):
        row = rollouts[[i]]
        length, prompt = int(row.lengths), int(row.prompt_mask.sum())
        alone = Rollouts(
            prompt_ids=row.prompt_ids[:, :prompt],
            prompt_mask=row.prompt_mask[:, :prompt],
            tokens=row.tokens[:, :length],
            mask=row.mask[:, :length],
            finished=row.finished,
            prompt_index=row.prompt_index,
            log_probs=row.log_probs[:, :length],
        )
        torch.testing.assert_close(log_probs(model, alone)[0], together[i, :length], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["t5", "llama"])
def test_left_and_right_padded_prompts_agree(name: str) -> None:
    model = MODELS[name]()
    rollouts = sample(model, ragged_prompts(), max_new_tokens=5, seed=3)
    order = torch.argsort(rollouts.prompt_mask.int(), dim=1, stable=True)
    left = replace(
        rollouts,
        prompt_ids=rollouts.prompt_ids.gather(1, order),
        prompt_mask=rollouts.prompt_mask.gather(1, order),
    )
    torch.testing.assert_close(log_probs(model, left), log_probs(model, rollouts), atol=1e-6, rtol=0)


@pytest.mark.parametrize("make", [tiny_t5, tiny_gpt2])
def test_temperature_and_top_k_are_the_behaviour_policy(make: object) -> None:
    """Defect 1 of the reference code: the sampling flags are dropped on the way, so that rollouts are greedy."""
    model = make()  # type: ignore[operator]
    rollouts = sample(
        model, ragged_prompts(), rollouts_per_prompt=20, max_new_tokens=6, temperature=0.7, top_k=3, seed=4
    )
    logits = token_logits(model, rollouts) / 0.7
    best = logits.topk(3, dim=-1)
    inside = (best.indices == rollouts.tokens[..., None]).any(dim=-1)
    assert inside[rollouts.mask].all()
    behaviour = logits.gather(-1, rollouts.tokens[..., None])[..., 0] - best.values.logsumexp(dim=-1)
    torch.testing.assert_close(
        behaviour.detach()[rollouts.mask], rollouts.log_probs[rollouts.mask], atol=1e-5, rtol=1e-5
    )
    first = rollouts.tokens[:20, 0]
    assert len(first.unique()) == 3  # sampled, not greedy


def test_prompts_in_any_form_are_the_same_prompts() -> None:
    model, (ids, mask) = tiny_t5(), ragged_prompts()
    lists = [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
    forms = [(ids, mask), {"input_ids": ids, "attention_mask": mask.long()}, lists, [torch.tensor(x) for x in lists]]
    tokens = [sample(model, form, max_new_tokens=5, seed=2).tokens for form in forms]
    assert all(torch.equal(tokens[0], other) for other in tokens)
    whole = sample(model, ids[2:], max_new_tokens=5, seed=2)
    assert bool(whole.prompt_mask.all())


def test_frequencies_match_probabilities() -> None:
    model = tiny_t5(vocab_size=7)
    prompts = ragged_prompts(1, vocab_size=7)
    rollouts = sample(model, prompts, rollouts_per_prompt=4000, max_new_tokens=1, seed=5)
    expected = token_logits(model, rollouts[:1])[0, 0].softmax(dim=-1)
    observed = torch.bincount(rollouts.tokens[:, 0], minlength=7) / 4000
    assert (observed - expected).abs().max() < 4 * (0.25 / 4000) ** 0.5


def test_one_seed_one_set_of_responses_and_the_global_state_stays() -> None:
    model = tiny_t5(dropout_rate=0.5).train()
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    one = sample(model, ragged_prompts(), max_new_tokens=8, seed=6)
    two = sample(model, ragged_prompts(), max_new_tokens=8, seed=6)
    other = sample(model, ragged_prompts(), max_new_tokens=8, seed=7)
    assert torch.equal(one.tokens, two.tokens) and torch.equal(one.log_probs, two.log_probs)
    assert not torch.equal(one.tokens, other.tokens)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training and all(m.training for m in model.modules())


def test_greedy_is_the_most_probable_token() -> None:
    model = tiny_llama()
    rollouts = sample(model, ragged_prompts(), max_new_tokens=5, temperature=0)
    best = token_logits(model, rollouts).argmax(dim=-1)
    assert torch.equal(best[rollouts.mask], rollouts.tokens[rollouts.mask])


def test_vocabulary_keeps_padding_tokens_out() -> None:
    model = tiny_gpt2(vocab_size=32)
    rollouts = sample(model, ragged_prompts(), rollouts_per_prompt=30, max_new_tokens=8, vocabulary=5, seed=1)
    assert int(rollouts.tokens.max()) < 5
    torch.testing.assert_close(log_probs(model, rollouts, vocabulary=5).detach(), rollouts.log_probs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be an integer of at least 1; got 0"),
        ({"rollouts_per_prompt": 0}, "rollouts_per_prompt must be"),
        ({"top_k": -1}, "top_k must be"),
        ({"temperature": -0.5}, "temperature must be 0"),
        ({"prompts": []}, "prompts is empty"),
        ({"prompts": ["a text"]}, "a tokenizer is needed"),
    ],
)
def test_bad_input(change: dict, message: str) -> None:
    settings = {"prompts": ragged_prompts(), "max_new_tokens": 3, **change}
    with pytest.raises(ValueError, match=message):
        sample(tiny_t5(), settings.pop("prompts"), **settings)


def test_no_end_of_sequence_is_refused() -> None:
    model = tiny_bart()
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    with pytest.raises(ValueError, match="end-of-sequence"):
        sample(model, ragged_prompts(), max_new_tokens=3)


def test_empty_prompt_of_a_causal_model_is_refused() -> None:
    ids, mask = ragged_prompts()
    mask[1] = False
    with pytest.raises(ValueError, match="empty"):
        sample(tiny_gpt2(), (ids, mask), max_new_tokens=3)


@pytest.mark.parametrize("make", [tiny_t5, tiny_gpt2])
def test_a_seed_for_each_response_makes_it_independent_of_its_batch(make: object) -> None:
    model = make()  # type: ignore[operator]
    ids, mask = ragged_prompts(rows=4)
    together = sample(model, (ids, mask), rollouts_per_prompt=2, max_new_tokens=6, seed=list(range(10, 18)))
    for i in range(4):
        alone = sample(
            model, (ids[[i]], mask[[i]]), rollouts_per_prompt=2, max_new_tokens=6, seed=[10 + 2 * i, 11 + 2 * i]
        )
        for row in range(2):
            n = int(alone.lengths[row])
            assert torch.equal(alone.tokens[row, :n], together[[2 * i + row]].tokens[0, :n])
            assert int(together.lengths[2 * i + row]) == n
    with pytest.raises(ValueError, match="one for each of the 4 responses; got 2 seeds"):
        sample(model, (ids, mask), max_new_tokens=2, seed=[1, 2])


@pytest.mark.parametrize("top_k", [0, 3])
def test_seeded_rows_follow_the_policy(top_k: int) -> None:
    model = tiny_gpt2()
    ids = torch.tensor([[3, 4, 5]]).expand(4000, -1)
    rollouts = sample(model, ids, max_new_tokens=1, temperature=0.7, top_k=top_k, seed=list(range(4000)))
    expected = sample(model, ids, max_new_tokens=1, temperature=0.7, top_k=top_k, seed=0)
    table = torch.zeros(17).scatter(0, rollouts.tokens[:, 0], rollouts.log_probs[:, 0].exp())
    assert float(table.sum()) == pytest.approx(1.0, abs=2e-3)  # every token that can be drawn was drawn
    observed = torch.bincount(rollouts.tokens[:, 0], minlength=17) / 4000
    assert float((observed - table).abs().max()) < 4 * (0.25 / 4000) ** 0.5
    other = torch.bincount(expected.tokens[:, 0], minlength=17) / 4000
    assert float((observed - other).abs().max()) < 6 * (0.25 / 4000) ** 0.5


@pytest.mark.parametrize("ids", [torch.tensor([[5, 6, 7], [5, 6, 0]]), [[0, 5, 6], [7, 5, 6]]])
def test_padding_without_a_mask_is_refused(ids: object) -> None:
    with pytest.raises(ValueError, match="input_ids without attention_mask, and row . begins or ends with"):
        sample(tiny_t5(), {"input_ids": ids}, eos_token_id=1, max_new_tokens=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": {(1, 2)}}, "prompts must be a list of texts"),
        ({"tokenizer": 5}, "tokenizer must be a tokenizer of transformers.*got 5"),
        ({"seed": "7"}, "seed must be one integer"),
        ({"temperature": "hot"}, "temperature must be 0"),
        ({"student": "arithmetic-50k"}, "student must be a torch.nn.Module; got str"),
    ],
)
def test_wrong_types(change: dict, message: str) -> None:
    given = {"student": tiny_t5(), "prompts": [[5, 6]], "eos_token_id": 1, "max_new_tokens": 2, **change}
    with pytest.raises((TypeError, ValueError), match=message):
        sample(**given)
