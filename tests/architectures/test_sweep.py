"""Every text architecture is right in sampling, scoring and the gradient engine, or refused with the reason."""

from __future__ import annotations

import pytest

from tests.architectures.expected import NOT_BUILT, REFUSED, SLOW, architectures
from tests.architectures.judge import judged

SWEPT = [(auto, kind) for auto, kind in architectures() if kind not in NOT_BUILT]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("auto", "kind"),
    [
        pytest.param(
            auto, kind, id=f"{kind}-{auto.removeprefix('AutoModelFor')}", marks=[pytest.mark.slow] * (i % 5 > 0)
        )
        for i, (auto, kind) in enumerate(SWEPT)
    ],
)
def test_right_or_refused(auto: str, kind: str) -> None:
    outcome = judged(kind, auto)
    if kind in REFUSED:
        assert outcome.state == "refused" and REFUSED[kind][0] in outcome.words, outcome
    else:
        assert outcome.state == "right", outcome


def test_the_tables_name_architectures_only() -> None:
    assert {*NOT_BUILT, *REFUSED, *SLOW} <= {kind for _, kind in architectures()}
