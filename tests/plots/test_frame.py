"""The statistics frame: what is refused, and which rows are found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kvar.analysis.frames.statistics_frame import COLUMNS, find, select, students
from tests.plots.statistics_frames import row, study


@pytest.mark.parametrize("column", COLUMNS)
def test_each_missing_column_is_named(frame, column):
    with pytest.raises(ValueError, match=rf"lacks the column {column}\."):
        select(frame.drop(columns=column), "trace")


def test_empty_frame_is_refused(frame):
    with pytest.raises(ValueError, match="is empty"):
        select(frame.iloc[:0], "trace")


def test_missing_statistic_names_it_and_what_there_is(frame):
    with pytest.raises(ValueError, match=r"no 'snr' in group 'all'; its statistics: .*trace"):
        select(frame[frame["statistic"] != "snr"], "snr")


def test_missing_group_and_step_are_named(frame):
    with pytest.raises(ValueError, match=r"no group 'decoder'; its groups: all"):
        select(frame, "trace", group="decoder")
    with pytest.raises(ValueError, match=r"at step 7; measured steps: 0, 100, 200"):
        select(frame, "trace", step=7)


def test_a_statistic_without_any_value_is_missing(frame):
    gone = frame.assign(value=frame["value"].where(frame["statistic"] != "snr"))
    with pytest.raises(ValueError, match="no 'snr'"):
        select(gone, "snr")
    assert find(gone, "snr").empty


def test_two_rows_for_one_point_are_refused(frame):
    twice = pd.concat([frame, pd.DataFrame([row("small", "K=2", "trace", 1.0, 0.5, 1.5, step=200)])])
    with pytest.raises(ValueError, match=r"more than one 'trace' for student 'small', kernel 'K=2', step 200"):
        select(twice, "trace")


def test_last_step_is_each_students_own():
    early = study(steps=(0, 50), students=("small",))
    frame = pd.concat([early, study(steps=(0, 200), students=("large",))])
    rows = select(frame, "trace")
    assert dict(zip(rows["student"], rows["step"], strict=True)) == {"small": 50, "large": 200}


def test_kernels_without_a_k_only_on_request(frame):
    more = pd.concat([frame, pd.DataFrame([row("small", "geometric(0.9)", "trace", 1.0, 0.5, 1.5, step=200)])])
    assert "geometric(0.9)" not in set(select(more, "trace")["kernel"])
    assert "geometric(0.9)" in set(select(more, "trace", only_k=False)["kernel"])


def test_students_by_size(frame):
    shuffled = frame.sample(frac=1.0, random_state=0)
    assert students(shuffled) == ["small", "medium", "large"]
    assert select(shuffled, "trace")["k"].tolist() == [1.0, 2.0, 4.0, 8.0, np.inf] * 3
