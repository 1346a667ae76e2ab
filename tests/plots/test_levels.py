"""Estimators without a K on figures of K."""

from __future__ import annotations

import pandas as pd
import pytest

from kvar import plots
from kvar.plots.parts.levels import MOST
from tests.plots.statistics_frames import row


@pytest.mark.parametrize("name", ["efficiency", "mse", "snr", "variance"])
def test_names_with_a_reward_are_level_lines_of_a_lone_student(frame, name):
    statistic = {"variance": "trace_ratio"}.get(name, name)
    values = {"kl immediate exact": 0.3, "gap K=1 exact": 0.5, "K=1 - leave-one-out": 0.7}
    more = [row("small", kernel, statistic, v, v / 2, 2 * v, step=200) for kernel, v in values.items()]
    more += [row("small", f"kl window({i}) exact", statistic, 0.01 * i, 0.0, 1.0, step=200) for i in range(2, 20)]
    draw = getattr(plots, f"{name}_against_k")
    every = pd.concat([frame, pd.DataFrame(more)])
    lone = draw(every[every["student"] == "small"])
    lines = [str(line.get_gid())[6:] for line in lone.lines if str(line.get_gid()).startswith("level:")]
    assert len(lines) == MOST and not any(" - " in line for line in lines)
    assert ("kl immediate exact" in lines) == (name != "mse")
    written = {text.get_text().partition(" (p=")[0] for text in lone.texts}
    assert set(lines) <= written
    several = draw(every)
    assert not [line for line in several.lines if str(line.get_gid()).startswith("level:")]
