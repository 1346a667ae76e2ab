"""What cannot be measured is refused by name; what only looks unusual is measured all the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from kvar.gradients import gradient_moments
from tests.cases import CASES, build, rollouts, tiny_gpt2, tiny_t5
from tests.gradients.truth import as_callable, assert_close, weights

EXACT = ("one-pass", "loop")
FEW = {"jvp": {"directions": 3}}


@pytest.mark.parametrize("engine", [*EXACT, "jvp"])
@pytest.mark.parametrize("make", [tiny_t5, tiny_gpt2])
def test_training_mode_with_dropout_is_measured_without_it(make: object, engine: str) -> None:
    dropout = {"dropout_rate": 0.4} if make is tiny_t5 else {"resid_pdrop": 0.4, "embd_pdrop": 0.4, "attn_pdrop": 0.4}
    data = rollouts(n=4)
    w = weights(data, dtype=torch.float32)
    plain = gradient_moments(make(vocab_size=23), data, w, engine=engine, **FEW.get(engine, {}))  # type: ignore[operator]
    student = make(vocab_size=23, **dropout).train()  # type: ignore[operator]
    found = gradient_moments(student, data, w, engine=engine, **FEW.get(engine, {}))
    torch.testing.assert_close(found.pair, plain.pair)
    assert all(module.training for module in student.modules())


@pytest.mark.parametrize("engine", [*EXACT, "jvp"])
@pytest.mark.parametrize("name", ["t5", "gpt2"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(name: str, engine: str, reentrant: bool) -> None:
    model, data = build(name), rollouts(n=4)
    w = weights(data)
    plain = gradient_moments(model, data, w, engine=engine, **FEW.get(engine, {}))
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    found = gradient_moments(model.train(), data, w, engine=engine, **FEW.get(engine, {}))
    assert_close(dict(found.groups), dict(plain.groups), 1e-9)
    assert model.is_gradient_checkpointing and model.training


class AlwaysCheckpointed(nn.Module):
    """Checkpoints its layer whatever the mode is, as hand-written models do."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.layer = nn.Embedding(23, 6).double(), nn.Linear(6, 6).double()
        self.head = nn.Linear(6, 23).double()
        self.config = type("Config", (), {"is_encoder_decoder": False})()
        self.reentrant = reentrant

    def forward(self, input_ids: torch.Tensor, **inputs: object) -> object:
        """Logits of a bag of words."""
        hidden = self.embedding(input_ids).cumsum(dim=1)
        hidden = checkpoint(lambda x: torch.tanh(self.layer(x)), hidden, use_reentrant=self.reentrant)
        return type("Output", (), {"logits": self.head(hidden)})()


@pytest.mark.parametrize(("reentrant", "engine"), [(False, "one-pass"), (True, "one-pass"), (True, "loop")])
def test_a_module_that_always_checkpoints_is_refused(reentrant: bool, engine: str) -> None:
    data = rollouts(n=4)
    with pytest.raises(ValueError, match="recomputes activations .* switch that off while measuring"):
        gradient_moments(AlwaysCheckpointed(reentrant), data, weights(data), engine=engine)
    gradient_moments(AlwaysCheckpointed(False), data, weights(data), engine="loop")


@pytest.mark.parametrize("engine", EXACT)
@pytest.mark.parametrize("kind", ["nan", "infinite slope"])
def test_a_callable_that_fails_for_one_row_names_that_row(engine: str, kind: str) -> None:
    """Not row 0, which the same graph reaches first and whose own gradient is sound."""
    model, data = build("gpt2"), rollouts(n=5)
    tokens = data.tokens[..., None]

    def scalars(logits: torch.Tensor) -> torch.Tensor:
        total = logits.log_softmax(-1).gather(-1, tokens)[..., 0].masked_fill(~data.mask, 0.0).sum(dim=1)
        odd = torch.arange(len(data)) == 3
        if kind == "nan":
            return torch.stack([total, torch.where(odd, torch.log(total * 0 - odd.double()), total)])
        return torch.stack([total, total + torch.sqrt((total - total.detach()) * odd + (~odd).double())])

    groups = {"last": [list(model.parameters())[-1]]}
    match = r"nan for estimator 'b' \(number 1\), trajectory 3" if kind == "nan" else "trajectory 3, group 'last'"
    with pytest.raises(FloatingPointError, match=match):
        gradient_moments(model, data, scalars, names=["a", "b"], groups=groups, engine=engine)


@pytest.mark.parametrize("engine", [*EXACT, "jvp"])
def test_non_finite_gradients_name_estimator_trajectory_and_group(engine: str) -> None:
    model, data = build("gpt2"), rollouts(n=4)
    w = weights(data)
    w[1, 2] = 1e200 * data.mask[2].double()  # finite, but its square is not
    groups = {"head": "lm_head"}
    with pytest.raises(FloatingPointError, match="estimator 'big' .number 1., trajectory 2, group 'head'"):
        gradient_moments(model, data, w, names=["a", "big", "c"], groups=groups, engine=engine)


@pytest.mark.parametrize("engine", EXACT)
def test_callables_agree_with_token_weights(engine: str) -> None:
    model, data = build("bart"), rollouts(n=4)
    w = weights(data)
    truth = gradient_moments(model, data, w, engine="loop")
    found = gradient_moments(model, data, as_callable(data, w), engine=engine)
    assert_close(dict(found.groups), dict(truth.groups), max(1e-9, CASES["bart"].tolerance))


@pytest.mark.parametrize("engine", [*EXACT, "jvp"])
@pytest.mark.parametrize(
    ("scalars", "match"),
    [
        (lambda logits: logits.sum(dim=(1, 2)), r"must return \(E, N\) scalars, N = 4; got \(4,\)"),
        (lambda logits: logits.sum(dim=2), r"N = 4; got \(4, 6\)"),
        (lambda logits: 1.0, "got float"),
    ],
)
def test_callables_of_wrong_shape(engine: str, scalars: object, match: str) -> None:
    data = rollouts(n=4)
    with pytest.raises(ValueError, match=match):
        gradient_moments(build("gpt2"), data, scalars, engine=engine)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", [*EXACT, "jvp"])
def test_nothing_to_train(engine: str) -> None:
    data = rollouts(n=4)
    with pytest.raises(ValueError, match="no trainable parameter"):
        gradient_moments(build("gpt2").requires_grad_(False), data, weights(data), engine=engine)


def test_a_compiled_part_is_named() -> None:
    model, data = build("gpt2"), rollouts(n=4)
    model.transformer.h[1].mlp = torch.compile(model.transformer.h[1].mlp)
    with pytest.raises(ValueError, match=r"student\.transformer\.h\.1\.mlp is compiled"):
        gradient_moments(model, data, weights(data))
