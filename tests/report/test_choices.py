"""The choices of adaptive trainings in a report of runs, whose probes need no kernel with a K."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kvar.records import RunWriter
from kvar.report.by_run import report_runs
from tests.report.small_runs import write_run


def test_a_report_says_what_was_chosen_and_why(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", kernels=("K=2 - batch-mean", "immediate - batch-mean"))
    write_run(tmp_path / "fixed", kernels=("K=2 - batch-mean", "immediate - batch-mean"), seed=1)
    rows = {"estimator": ["K=2", "K=2"], "previous": ["K=1", "K=2"], "reason": ["It gains.", "No gain is resolved."]}
    numbers = {"gain": 0.5, "gain_low": 0.25, "gain_high": 0.75, "seconds": 1.0}
    with RunWriter(run.path, run.config, keep=True) as writer:
        choices = pd.DataFrame(rows).assign(step=[0, 1000], changed=[True, False], **numbers)
        writer.append("choices", choices.assign(probe="probe", target="J", batch=64))
    text = report_runs([tmp_path], tmp_path / "report")
    after = text.partition("Estimators chosen in training:\n")[2]
    said = [line.partition(" / seed 0, ")[2] for line in after.splitlines()]
    assert said == ["step 0, K=2: It gains.", "step 1,000, K=2: No gain is resolved."]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Estimators chosen in training" in page and "No gain is resolved." in page
    assert "Estimators chosen" not in report_runs([tmp_path / "fixed"], tmp_path / "fixed-report")
