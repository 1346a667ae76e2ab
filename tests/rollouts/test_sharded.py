"""Modules that cannot be made whole on one process are refused, each with its remedy; wrappers are looked through."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from kvar.gradients import gradient_moments
from kvar.gradients.state import unwrap as measurable
from kvar.hooks import GradientProbe
from kvar.rollouts import sample, score, whole
from kvar.rollouts.sharded import is_sharded, unwrap
from tests.cases import ragged_prompts, rollouts, tiny_gpt2
from tests.gradients.truth import weights


def zero_3(model: Any) -> Any:
    parameter = next(model.parameters())
    parameter.ds_id, parameter.ds_status = 0, "NOT_AVAILABLE"
    return model


def empty(model: Any) -> Any:
    head = model.transformer.ln_f
    head.weight = nn.Parameter(torch.zeros(0))
    return model


def compiled_in_place(model: Any) -> Any:
    model.transformer.h[0].compile()
    return model


class FullyShardedDataParallel(nn.Module):
    """In name, FSDP1's."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.config = module, module.config


class DeepSpeedEngine(nn.Module):
    """In name, DeepSpeed's."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class Partly(nn.Parameter):
    """In looks, a DTensor."""

    def full_tensor(self) -> torch.Tensor:
        raise AssertionError("gathered")

    @property
    def placements(self) -> tuple[Any, ...]:
        return (SimpleNamespace(is_replicate=lambda: False, is_shard=lambda: True),)


def tensor_parallel(model: Any) -> Any:
    model.transformer.ln_f.weight = Partly(model.transformer.ln_f.weight.detach())
    return model


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "compiled": (torch.compile, r"is compiled by torch.compile: pass the plain module \(its \._orig_mod\)"),
    "in place": (compiled_in_place, r"\.transformer\.h\.0 is compiled in place by \.compile\(\): measure a copy"),
    "FSDP1": (FullyShardedDataParallel, "is sharded by FSDP1.*use FSDP2 .*or DDP"),
    "ZeRO-3": (zero_3, r"\.transformer\.wte\.weight is a partition of DeepSpeed ZeRO-3: use ZeRO-2, FSDP2 or DDP"),
    "engine": (lambda m: DeepSpeedEngine(zero_3(m)), "is a partition of DeepSpeed ZeRO-3"),
    "empty": (empty, r"\.transformer\.ln_f\.weight is empty, as partitioned parameters are"),
    "meta": (lambda m: m.to("meta"), "is on the meta device and has no values: load the weights"),
    "tensor parallel": (tensor_parallel, "is split by tensor parallelism.*use FSDP2 or DDP"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_made_whole_is_refused_everywhere(case: str) -> None:
    make, message = REFUSED[case]
    model, data = make(tiny_gpt2()), rollouts(n=2)
    uses: list[Callable[[], Any]] = [
        lambda: sample(model, ragged_prompts(), max_new_tokens=2),
        lambda: gradient_moments(model, data, weights(data)),
        lambda: GradientProbe(ragged_prompts(), "K=1", teacher=tiny_gpt2(seed=1)).measure(model),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="student" + ".*" + message) as error:
            use()
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="teacher" + ".*" + message):
        score(model, data)


def test_quantised_weights_have_no_gradient_but_adapters_on_them_have() -> None:
    model = tiny_gpt2()
    weight = model.transformer.ln_f.weight
    kind = type("Params4bit", (nn.Parameter,), {"__module__": "bitsandbytes.nn.modules"})
    model.transformer.ln_f.weight = kind(weight.detach())
    with pytest.raises(ValueError, match=r"student\.\S+ is of a student with quantised weights.*LoRA adapters"):
        measurable(model)
    model.peft_config = {}
    assert measurable(model) is model
    model = tiny_gpt2()
    model.hf_quantizer = object()
    with pytest.raises(ValueError, match="quantised weights"):
        measurable(model)
    assert unwrap(model, "teacher") is model


def test_wrappers_are_looked_through() -> None:
    model = tiny_gpt2()
    for wrapped in (model, nn.DataParallel(model), DeepSpeedEngine(model)):
        with whole(wrapped) as plain:
            assert plain is model
    assert not is_sharded(model)
    for other in (None, len):
        with whole(other) as same:
            assert same is other
    with pytest.raises(TypeError, match="student must be a torch.nn.Module; got str"):
        unwrap("gpt2")
    ours = sample(nn.DataParallel(model), ragged_prompts(), max_new_tokens=3)
    assert torch.equal(ours.tokens, sample(model, ragged_prompts(), max_new_tokens=3).tokens)
