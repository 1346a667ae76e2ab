"""One policy for all: what is never emitted has probability zero in sampling, scoring, gradients and beams."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from kvar.evaluation.beam import beam_search
from kvar.gradients import gradient_moments, score_projections
from kvar.gradients.forward_mode.engine import directions_of
from kvar.gradients.output_layer.head_watch import HeadWatch
from kvar.rollouts import Policy, Rollouts, concatenate, log_probs, policy_of, sample, score
from kvar.rollouts.policy import adopt
from kvar.rollouts.score_norms import score_norms
from tests.cases import MODELS, ragged_prompts, tiny_bart, tiny_gpt2, tiny_t5


class Tok:
    """Ids 0 to 14 but for 11; 0 pads, 1 ends."""

    pad_token_id, eos_token_id = 0, 1

    def get_vocab(self) -> dict[str, int]:
        return {f"t{i}": i for i in range(15) if i != 11}


REFUSED = {11, 12, 15, 16}  # a gap of the tokenizer, suppressed, padding of the embedding matrix
FIRST = {13}


def constrained(make: Any, **changes: Any) -> Any:
    model = make(vocab_size=17, **changes)
    model.generation_config.suppress_tokens = [12]
    model.generation_config.begin_suppress_tokens = [13]
    with torch.no_grad():
        for row in (11, 12, 13, 15, 16):  # what is refused would win if it counted
            model.get_output_embeddings().weight[row] *= 3
    return model


def by_hand(model: Any, rollouts: Rollouts, i: int) -> torch.Tensor:
    """(T_i,) log pi(y_t | s_t) of one response, from plain forward passes over unpadded ids and a masked softmax."""
    prompt = rollouts.prompt_ids[i][rollouts.prompt_mask[i]][None]
    tokens = rollouts.tokens[i][rollouts.mask[i]]
    if model.config.is_encoder_decoder:
        start = torch.tensor([[model.config.decoder_start_token_id]])
        logits = model(input_ids=prompt, decoder_input_ids=torch.cat([start, tokens[None, :-1]], dim=1)).logits[0]
    else:
        logits = model(input_ids=torch.cat([prompt, tokens[None]], dim=1)).logits[0, prompt.shape[1] - 1 : -1]
    terms = []
    for t, row in enumerate(logits):
        allowed = [a for a in range(17) if a not in REFUSED and not (t == 0 and a in FIRST)]
        terms.append(row[int(tokens[t])] - torch.logsumexp(row[allowed], dim=0))
    return torch.stack(terms)


@pytest.fixture(params=["t5", "bart", "gpt2", "llama"])
def case(request: pytest.FixtureRequest) -> tuple[Any, Rollouts]:
    model = constrained(MODELS[request.param]).double()
    drawn = sample(model, ragged_prompts(vocab_size=11), Tok(), rollouts_per_prompt=6, max_new_tokens=5, seed=0)
    return model, drawn


def test_what_is_read_off_model_and_tokenizer() -> None:
    model = tiny_bart()
    config = model.generation_config
    config.bad_words_ids, config.suppress_tokens, config.begin_suppress_tokens = [[5], [6, 7], [1]], [8], [9]
    config.eos_token_id, config.forced_bos_token_id = [1, 3, 99], 4
    expected = Policy(size=15, ends=(1, 3), forbidden=(5, 8, 11), forbidden_first=(9,), forced=(4,))
    assert policy_of(model, Tok()) == expected  # an end among the bad words stays an end, as in transformers
    assert policy_of(model, eos_token_id=2).ends == (2,)
    assert policy_of(tiny_gpt2(), vocabulary=9) == Policy(size=9, ends=(1,))


def test_the_teachers_constraints_join() -> None:
    teacher = tiny_bart()
    teacher.generation_config.suppress_tokens, teacher.generation_config.eos_token_id = [8], [1, 3]
    teacher.generation_config.forced_bos_token_id = 4
    joined = policy_of(tiny_bart(), Tok(), teacher=teacher)
    assert joined == Policy(size=15, ends=(1, 3), forbidden=(8, 11), forced=(4,))
    student = tiny_bart()
    adopt(student, joined)
    assert policy_of(student, Tok()) == joined
    student.generation_config.forced_bos_token_id = 5
    with pytest.raises(ValueError, match=r"forced_bos_token_id is \[5\], the teacher's \[4\]"):
        policy_of(student, Tok(), teacher=teacher)


def test_a_policy_that_cannot_end_is_refused() -> None:
    model = tiny_gpt2()
    model.generation_config.suppress_tokens = [1]
    with pytest.raises(ValueError, match="suppress_tokens"):
        policy_of(model, Tok())
    bart = tiny_bart()
    bart.generation_config.forced_bos_token_id = 16
    with pytest.raises(ValueError, match="forced_bos_token_id=16 is no token"):
        policy_of(bart, Tok())


def test_restricted_logits_by_hand() -> None:
    logits = torch.arange(12.0).view(1, 2, 6)
    policy = Policy(size=5, forbidden=(1,), forbidden_first=(3,))
    inf = torch.inf
    assert policy.restricted(logits).tolist() == [[[0, -inf, 2, -inf, 4], [6, -inf, 8, 9, 10]]]
    assert policy.restricted(logits[0], torch.tensor([1, 0])).tolist() == [[0, -inf, 2, 3, 4], [6, -inf, 8, -inf, 10]]
    assert policy.restricted(logits[0], 2).tolist() == [[0, -inf, 2, 3, 4], [6, -inf, 8, 9, 10]]


def test_sampled_scored_and_differentiated_alike(case: tuple[Any, Rollouts]) -> None:
    model, drawn = case
    kept = drawn.tokens[drawn.mask].tolist()
    assert not REFUSED & set(kept) and not FIRST & set(drawn.tokens[:, 0].tolist()) and FIRST & set(kept)
    for i in range(len(drawn)):
        expected = by_hand(model, drawn, i).detach()
        torch.testing.assert_close(log_probs(model, drawn)[i, : len(expected)].detach(), expected)
        torch.testing.assert_close(drawn.log_probs[i, : len(expected)].double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("engine", ["one-pass", "loop"])
def test_gradients_are_those_of_the_restricted_softmax(case: tuple[Any, Rollouts], engine: str) -> None:
    model, drawn = case
    weights = torch.randn(2, *drawn.mask.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def of_logits(logits: torch.Tensor) -> torch.Tensor:  # the first estimator again, as a callable
        tokens = drawn.tokens.masked_fill(~drawn.mask, 0)[..., None]
        picked = logits.log_softmax(dim=-1).gather(-1, tokens)[..., 0].masked_fill(~drawn.mask, 0.0)
        return (weights[:1] * picked).sum(dim=-1)

    moments = gradient_moments(model, drawn, weights, engine=engine)["all"]
    called = gradient_moments(model, drawn, of_logits, engine=engine)["all"]
    for i in (0, len(drawn) - 1):
        terms = by_hand(model, drawn, i)
        for e in range(2):
            scalar = (weights[e, i, : len(terms)] * terms).sum()
            grads = torch.autograd.grad(scalar, list(model.parameters()), retain_graph=True, allow_unused=True)
            norm = sum(float(g.square().sum()) for g in grads if g is not None)
            assert float(moments.sq_norm[e, i]) == pytest.approx(norm, rel=1e-9)
    torch.testing.assert_close(called.sq_norm[0], moments.sq_norm[0])


def test_the_output_layer_and_score_norms_see_the_same_policy() -> None:
    model = constrained(tiny_gpt2, tie_word_embeddings=False).double()
    drawn = sample(model, ragged_prompts(vocab_size=11), Tok(), rollouts_per_prompt=2, max_new_tokens=4, seed=2)
    head = model.get_output_embeddings().weight
    with HeadWatch(model) as watch:
        log_probs(model, drawn)
        norms = watch.norms(drawn, torch.ones(1, *drawn.mask.shape, dtype=torch.float64))
    squares = score_norms(model, drawn)
    for i in range(len(drawn)):
        terms = by_hand(model, drawn, i)
        (whole,) = torch.autograd.grad(terms.sum(), head, retain_graph=True)
        assert float(norms[0, i]) == pytest.approx(float(whole.square().sum()), rel=1e-9)
        for t, term in enumerate(terms):
            (one,) = torch.autograd.grad(term, head, retain_graph=True)
            assert float(squares[i, t]) == pytest.approx(float(one.square().sum()), rel=1e-9)


def test_values_are_over_the_actions_alone() -> None:
    model = constrained(tiny_gpt2).double()
    drawn = sample(model, ragged_prompts(vocab_size=11), Tok(), rollouts_per_prompt=2, max_new_tokens=3, seed=3)
    teacher = tiny_gpt2(seed=5).double()
    teacher.generation_config.suppress_tokens = [9]  # of the teacher alone
    unseen = drawn[~(drawn.tokens == 9).any(dim=1)]
    values, chunked = (score(teacher, unseen, max_logits=size) for size in (2**25, 1))
    for i in range(len(unseen)):
        prompt = unseen.prompt_ids[i][unseen.prompt_mask[i]][None]
        tokens = unseen.tokens[i][unseen.mask[i]]
        logits = teacher(input_ids=torch.cat([prompt, tokens[None]], dim=1)).logits[0, prompt.shape[1] - 1 : -1]
        for t, row in enumerate(logits):
            allowed = [a for a in range(15) if a not in (9, 11, 12) and not (t == 0 and a == 13)]
            centred = row - row[allowed].mean()
            assert float(values.q[i, t]) == pytest.approx(float(centred[int(tokens[t])]), abs=1e-9)
            assert float(values.v[i, t]) == pytest.approx(float(centred[allowed].max()), abs=1e-9)
    torch.testing.assert_close(chunked.gap, values.gap)


def test_forced_tokens_are_given_and_carry_no_score() -> None:
    model = tiny_bart().double()
    model.generation_config.forced_bos_token_id = 4
    ids, mask = ragged_prompts()
    drawn = sample(model, (ids, mask), Tok(), rollouts_per_prompt=3, max_new_tokens=4, seed=0)
    assert drawn.policy is not None and drawn.policy.forced == (4,)
    weights = torch.ones(1, *drawn.mask.shape, dtype=torch.float64)
    moments = gradient_moments(model, drawn, weights)["all"]
    for i in range(len(drawn)):
        prompt, tokens = drawn.prompt_ids[i][drawn.prompt_mask[i]][None], drawn.tokens[i][drawn.mask[i]]
        given = torch.cat([torch.tensor([1, 4]), tokens[:-1]])[None]
        rows = (
            model(input_ids=prompt, decoder_input_ids=given)
            .logits[0, 1:, :15]
            .index_fill(1, torch.tensor(11), -torch.inf)
        )
        terms = rows.log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0]
        torch.testing.assert_close(log_probs(model, drawn)[i, : len(tokens)], terms)
        torch.testing.assert_close(drawn.log_probs[i, : len(tokens)].double(), terms.detach(), atol=1e-5, rtol=0)
        grads = torch.autograd.grad(terms.sum(), list(model.parameters()), allow_unused=True)
        assert float(moments.sq_norm[0, i]) == pytest.approx(
            sum(float(g.square().sum()) for g in grads if g is not None)
        )


@pytest.mark.parametrize("make", [tiny_bart, tiny_t5, tiny_gpt2])
def test_greedy_and_beams_are_transformers_own_under_the_same_constraints(make: Any) -> None:
    model = constrained(make)
    model.generation_config.eos_token_id = [1, 3]
    if model.config.is_encoder_decoder:
        model.generation_config.forced_bos_token_id = 4
    ids = torch.tensor([[5, 6, 7]])
    own = {"suppress_tokens": [11, 12, 15, 16], "begin_suppress_tokens": [13], "renormalize_logits": True}
    for beams in (1, 3):
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            do_sample=False,
            num_beams=beams,
            **own,
        )
        # transformers counts the forced token into the limit, and forbids 13 at the forced place only
        seq2seq = model.config.is_encoder_decoder
        expected = out[0, 2 if seq2seq else 3 :].tolist()
        assert not (seq2seq and expected[0] == 13)  # else the two would differ there
        limits: dict[str, Any] = {"beams": beams, "max_new_tokens": 5 if seq2seq else 6}
        (found,) = beam_search(model, ids, torch.ones_like(ids).bool(), Tok(), **limits)
        stop = next((place for place, token in enumerate(expected) if token in (1, 3)), len(expected)) + 1
        assert found == expected[:stop]
    greedy = sample(model, (ids, torch.ones_like(ids)), Tok(), max_new_tokens=5 if seq2seq else 6, temperature=0)
    (found,) = beam_search(
        model, ids, torch.ones_like(ids).bool(), Tok(), beams=1, max_new_tokens=greedy.tokens.shape[1]
    )
    assert greedy.tokens[0][greedy.mask[0]].tolist() == found


def test_a_token_outside_the_action_set_is_refused_by_name() -> None:
    model = constrained(tiny_gpt2)
    drawn = sample(model, ragged_prompts(vocab_size=11), Tok(), max_new_tokens=4, seed=0)
    for place, token in (((1, 0), 12), ((0, 0), 13), ((2, 0), 15)):
        tokens = drawn.tokens.clone()
        tokens[place] = token
        wrong = replace(drawn, tokens=tokens)
        for ask in (
            lambda r: log_probs(model, r),
            lambda r: score(model, r),
            lambda r: gradient_moments(model, r, torch.ones(1, *r.mask.shape)),
        ):
            with pytest.raises(ValueError, match=f"token {token} at row {place[0]}, position {place[1]}"):
                ask(wrong)


def test_rollouts_keep_their_policy_and_join_with_their_like() -> None:
    model = constrained(tiny_gpt2)
    drawn = sample(model, ragged_prompts(vocab_size=11), Tok(), max_new_tokens=4, seed=0)
    assert drawn[1:].policy == drawn.to("cpu").policy == concatenate([drawn, drawn]).policy == drawn.policy
    with pytest.raises(ValueError, match="several policies"):
        concatenate([drawn, replace(drawn, policy=None)])


def test_projections_are_derivatives_of_the_restricted_log_probabilities() -> None:
    model = constrained(tiny_t5).double()
    drawn = sample(model, ragged_prompts(vocab_size=11), Tok(), max_new_tokens=4, seed=1)
    found = score_projections(model, drawn, directions=2, seed=3).projections
    parameters = list(model.parameters())
    for d, direction in enumerate(directions_of(parameters, 2, seed=3)):
        for i in range(len(drawn)):
            for t, term in enumerate(by_hand(model, drawn, i)):
                grads = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
                along = sum(
                    float((g * direction[id(p)]).sum()) for g, p in zip(grads, parameters, strict=True) if g is not None
                )
                assert float(found[d, i, t]) == pytest.approx(along, rel=1e-5, abs=1e-5)  # T5 norms are float32
