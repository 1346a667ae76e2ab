"""The rounding error that a trial allows follows the precision of matrix products, however it was set."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kvar.rollouts.trial.cases import tolerance

MATMUL = torch.backends.cuda.matmul
ON_CUDA: Any = SimpleNamespace(dtype=torch.float32, device=torch.device("cuda"))


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    for owner in (torch.backends, MATMUL):
        if hasattr(owner, "fp32_precision"):
            owner.fp32_precision = "none"


def test_by_the_old_setting() -> None:
    assert tolerance(ON_CUDA) == 1e-4
    MATMUL.allow_tf32 = True
    try:
        assert tolerance(ON_CUDA) == 1e-2
        assert tolerance(torch.zeros(1)) == 1e-4  # on the CPU there is none
    finally:
        MATMUL.allow_tf32 = False
    assert tolerance(ON_CUDA) == 1e-4


@pytest.mark.skipif(not hasattr(MATMUL, "fp32_precision"), reason="torch has the old setting alone")
@pytest.mark.parametrize("owner", [MATMUL, torch.backends], ids=["matmul", "all"])
def test_by_the_new_setting(owner: Any) -> None:
    owner.fp32_precision = "tf32"
    with pytest.raises(RuntimeError, match="mix of the legacy and new APIs"):
        print(MATMUL.allow_tf32)  # what torch says to readers of the old one
    assert tolerance(ON_CUDA) == 1e-2
    owner.fp32_precision = "ieee"
    assert tolerance(ON_CUDA) == 1e-4


@pytest.mark.parametrize("allowed", [False, True])
def test_by_an_older_torch(allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(allow_tf32=allowed))
    assert tolerance(ON_CUDA) == (1e-2 if allowed else 1e-4)
