"""Settings that split or compile a student in ways that sampling cannot work with are refused with the remedy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kvar.distill.objectives import parse_objective
from kvar.distill.trainer.strategy import check_strategy, check_whole
from tests.cases import tiny_gpt2

LAUNCHED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}


def settings(objective: str, **changes: Any) -> Any:
    plain = {
        "objective": objective, "mixture": parse_objective(objective), "torch_compile": False, "deepspeed_plugin": None,
        "fsdp_plugin_args": None, "responses": None,
    }  # fmt: skip
    return SimpleNamespace(**{**plain, **changes})


@pytest.mark.parametrize(
    ("changes", "environment", "message"),
    [
        ({"fsdp_plugin_args": {"fsdp_version": 1}}, {}, "FSDP1 splits it for good. Use FSDP2"),
        ({}, LAUNCHED, "FSDP1 splits it for good"),
        ({"deepspeed_plugin": SimpleNamespace(zero_stage=3)}, {}, "ZeRO-3 splits it for good. Use stage 2, FSDP2, DDP"),
    ],
)
def test_what_samples_needs_the_whole_student(
    changes: dict[str, Any], environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"objective 'llmr' samples from the student.*{message}"):
        check_strategy(settings("llmr", **changes))
    with pytest.raises(ValueError, match=f"probe_every is 5, .*{message}"):
        check_strategy(settings("sft", **changes), probe_every=5)
    check_strategy(settings("sft", **changes))


def test_what_can_be_gathered_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    check_strategy(settings("llmr", fsdp_plugin_args={"fsdp_version": 2}), probe_every=1)
    check_strategy(settings("llmr", deepspeed_plugin=SimpleNamespace(zero_stage=2)), probe_every=1)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    check_strategy(settings("llmr"), probe_every=1)


def test_compiled_students_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="torch_compile is on.*set torch_compile false"):
        check_strategy(settings("sft", torch_compile=True))
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    with pytest.raises(ValueError, match="--dynamo_backend no"):
        check_strategy(settings("sft"))
    monkeypatch.delenv("ACCELERATE_DYNAMO_BACKEND")
    model = tiny_gpt2()
    model.compile()
    with pytest.raises(ValueError, match="student is compiled in place"):
        check_whole(model, None)
