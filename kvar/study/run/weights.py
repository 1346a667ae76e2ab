"""The weights in a run's folder: its final model and its checkpoints."""

from __future__ import annotations

from pathlib import Path

from kvar.records import load

__all__ = ["weights_of"]


def weights_of(run: Path, checkpoints: str | None) -> list[tuple[int, Path]]:
    """Training step and folder of a run's weights.

    Args:
        run: the run's folder.
        checkpoints: "all", "last", or steps, comma-separated ("200,400"; "checkpoint-200" is allowed); None for the
            final model, whose step is the last of the run's metrics.

    Raises:
        ValueError: no final model yet, or no such checkpoint.
    """
    saved = {int(path.name.rpartition("-")[2]): path for path in run.glob("checkpoint-*[0-9]")}
    holds = f"it holds {', '.join(saved[step].name for step in sorted(saved))}" if saved else "it holds none"
    if checkpoints is None:
        if not (run / "model").is_dir():
            raise ValueError(
                f"{run} has no final model; of checkpoints {holds}. Finish the run, or choose one of them."
            )
        steps = load(run).read("metrics", ["step"])["step"]
        return [(int(steps.max()) if len(steps) else 0, run / "model")]
    if checkpoints in ("all", "last") and saved:
        return sorted(saved.items())[-1 if checkpoints == "last" else 0 :]
    try:
        wanted = [int(word.strip().removeprefix("checkpoint-")) for word in checkpoints.split(",")]
        return [(step, saved[step]) for step in wanted]
    except (ValueError, KeyError):
        raise ValueError(f"{run} has no checkpoint {checkpoints!r}; {holds}; or all, last.") from None
