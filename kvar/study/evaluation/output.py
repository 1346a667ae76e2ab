"""Write evaluations to JSON files and to the run's records."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.records.parts import replace_file

if TYPE_CHECKING:
    from kvar.intervals import Interval
    from kvar.study.evaluation.result import Result

__all__ = ["write_comparison", "write_result"]


def write_result(result: Result, path: Path) -> list[str]:
    """Write the result as JSON to ``path`` and, for a run, into its table ``metrics``; returns lines that say so."""
    target, settings = result.target, result.target.settings.evaluation
    measured = result.evaluation.responses
    samples = [
        {"prompt": e.prompt, "target": e.target, "text": text, **{name: measured[name][i] for name in measured}}
        for i, (e, text) in enumerate(zip(result.examples, result.evaluation.texts, strict=True))
    ]
    content = {
        "model": target.model,
        "step": target.step,
        "split": settings.eval_split,
        "examples": len(result.examples),
        "beams": settings.eval_beams,
        "max_new_tokens": target.training.max_new_tokens,
        "calculator": settings.calculator,
        **asdict(result.options),
        "teacher": target.settings.models.teacher,
        "metrics": {name: interval.value for name, interval in result.scores.items()},
        "intervals": {name: asdict(interval) for name, interval in result.scores.items()},
        "samples": samples,
    }
    _write(content, path)
    return [f"written: {path}", *_record(result)]


def write_comparison(first: Result, second: Result, differences: dict[str, Interval], path: Path) -> None:
    """Write the paired differences of two results as JSON."""
    content = {
        "first": first.target.name,
        "second": second.target.name,
        "split": first.target.settings.evaluation.eval_split,
        "second_less_first": {name: asdict(interval) for name, interval in differences.items()},
        "resamples": first.options.resamples,
        "seed": first.options.seed,
        "level": first.options.level,
    }
    _write(content, path)


def _write(content: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(_finite(content), indent=1, ensure_ascii=False).encode())


def _record(result: Result) -> list[str]:
    """Write the scores to the run's records, unless another process has them locked."""
    import pandas as pd

    from kvar.records import RecordsError, RunWriter, load

    folder, step = result.target.run, result.target.step
    if folder is None:
        return []
    split = f"evaluate {result.target.settings.evaluation.eval_split}"
    beams = result.target.settings.evaluation.eval_beams
    split += f" {beams} beams" if beams > 1 else ""
    rows = [
        {"step": step, "split": split, "name": name + end, "value": value}
        for name, interval in result.scores.items()
        for end, value in (("", interval.value), (" low", interval.low), (" high", interval.high))
    ]
    try:
        with RunWriter(folder, load(folder).config, keep=True) as writer:
            writer.append("metrics", pd.DataFrame(rows), key=("evaluate", split, step))
    except RecordsError as error:
        return [f"not recorded in the run's metrics: {error}"]
    return [f"recorded: {folder}, table metrics, split {split!r}, step {step}"]


def _finite(value: Any) -> Any:
    """The same content with None for NaN and infinity."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value
