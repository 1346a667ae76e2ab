"""The model card (README.md) of saved weights: the student, its training and its scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["model_card"]

TASKS = {"translation": "translation", "summarisation": "summarization"}


def model_card(
    config: Mapping[str, Any], metrics: Mapping[str, float], *, parameters: int, step: int, split: str | None = None
) -> str:
    """A model card in the Hub's format: Markdown under a YAML header.

    Args:
        config: of the run, see ``kvar.study.run.identity.run_config``.
        metrics: name -> value; the final scores, or the last logged numbers.
        parameters: of the student.
        step: training steps done.
        split: data split of ``metrics``; None for numbers logged in training.
    """
    from huggingface_hub import EvalResult, ModelCardData

    from kvar._version import __version__

    name = f"{config.get('task')} student, {parameters:,} parameters"
    kind = TASKS.get(str(config.get("task")), "text-generation")
    dataset = str(config.get("data") or config.get("task"))
    results = [
        EvalResult(kind, dataset, dataset, metric, float(value), dataset_split=split)
        for metric, value in metrics.items()
        if split is not None
    ]
    hub = {key: str(config[key]) for key in ("student", "teacher", "data") if _hub_name(config.get(key))}
    base = [hub[key] for key in ("student", "teacher") if key in hub]
    header = ModelCardData(
        library_name="transformers",
        tags=["kvar", "knowledge-distillation", str(config.get("objective"))],
        base_model=base or None,
        datasets=[hub["data"]] if "data" in hub else None,
        model_name=name,
        eval_results=results or None,
    )
    measured = "Scores" if split else "Last logged"
    rows = [f"| {metric} | {_number(value)} |" for metric, value in metrics.items()] or ["| none | |"]
    fields = [f"| {field} | {_cell(value)} |" for field, value in config.items() if value is not None]
    return "\n".join(
        [
            "---",
            header.to_yaml(),
            "---",
            "",
            f"# {name}",
            "",
            f"Trained by kvar {__version__} for {step:,} steps with the objective {config.get('objective')}"
            + (f" from the teacher {config['teacher']}." if config.get("teacher") else "."),
            "",
            f"## {measured}" + (f" on {split}" if split else ""),
            "",
            "| metric | value |",
            "|---|---|",
            *rows,
            "",
            "## Settings",
            "",
            "Other fields have their defaults, see `kvar train --help`.",
            "",
            "| field | value |",
            "|---|---|",
            *fields,
            "",
        ]
    )


def _hub_name(value: object) -> bool:
    """Whether a name is the Hub's: owner/name, and not a local folder."""
    return isinstance(value, str) and value.count("/") == 1 and value[0] not in "./~" and not Path(value).exists()


def _number(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
