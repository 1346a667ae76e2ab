"""Sampled responses with the teacher's gap at every token, as data of a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kvar.records import Run
from kvar.report.page.token_texts import Speller, speller_of
from kvar.results.places import Place

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MOST_RESPONSES", "MOST_TOKENS", "responses_data", "spread"]

MOST_RESPONSES = 400
"""Most responses on a page."""
MOST_TOKENS = 512
"""Most tokens of one response on a page."""
_EACH = 6


def responses_data(
    runs: Sequence[Run], places: Sequence[Place], most: int = MOST_RESPONSES, each: int = _EACH
) -> dict[str, Any]:
    """Some responses of the probes of some runs, with q, V and the log-probability of every token.

    It takes the first and the last recorded step of each run, and up to ``each`` responses of each step, spread evenly
    over its trajectories. Where that exceeds ``most``, it takes only last steps, then fewer responses per step, then
    fewer runs, spread evenly.

    Args:
        runs: with or without trajectories.
        places: of the runs.
        most: responses in all.
        each: responses per step.

    Returns:
        shown: list of [run's name, step, responses recorded, whether the texts are known, responses], where a response
        has trajectory, prompt, finished, length and, by token, text, gap, q, v, log_prob; runs: number of runs shown;
        recorded: number of runs with responses; below: whether any gap is below 0.
    """
    spots = [(run, place, _steps(run)) for run, place in zip(runs, places, strict=True)]
    spots = [spot for spot in spots if spot[2]]
    recorded = len(spots)
    ends = 2 if sum(len({steps[0], steps[-1]}) for _, _, steps in spots) * each <= most else 1
    each = max(1, min(each, most // max(1, ends * recorded)))
    if recorded > most:
        spots = [spots[i] for i in spread(recorded, most)]
    shown: list[list[Any]] = []
    for run, place, steps in spots:
        spell = speller_of(run)
        for step in sorted({steps[0], steps[-1]} if ends == 2 else {steps[-1]}):
            rows = run.read("trajectories", where={"step": step})
            rows = rows[rows["probe"] == rows["probe"].iloc[0]]
            ids = np.unique(rows["trajectory"].to_numpy())
            chosen = ids[spread(len(ids), each)]
            parts = rows[rows["trajectory"].isin(chosen)].groupby("trajectory")
            responses = [_response(part, spell) for _, part in parts]
            shown.append([str(place), step, len(ids), spell is not None, responses])
    below = any((response["gap"] < -1e-6).any() for *_, responses in shown for response in responses)
    return {
        "shown": shown, "runs": len(spots), "recorded": recorded, "most_tokens": MOST_TOKENS, "below": below,
    }  # fmt: skip


def _steps(run: Run) -> list[int]:
    return sorted({step for _, step in run.measurements("trajectories")})


def spread(n: int, most: int) -> list[int]:
    """Up to ``most`` indices below n, evenly spaced from the first.

    >>> spread(10, 5), spread(2, 5)
    ([0, 2, 4, 6, 8], [0, 1])
    """
    return sorted({i * n // most for i in range(most)}) if n > most else list(range(n))


def _response(rows: pd.DataFrame, spell: Speller | None) -> dict[str, Any]:
    rows = rows.sort_values("position").head(MOST_TOKENS)
    tokens = rows["token"].astype(int).tolist()
    first = rows.iloc[0]
    return {
        "trajectory": int(first["trajectory"]),
        "prompt": int(first["prompt"]),
        "finished": bool(first["finished"]),
        "length": int(first["length"]),
        "text": [f" {token}" for token in tokens] if spell is None else spell(tokens),
        "gap": (rows["v"] - rows["q"]).to_numpy(),
        "q": rows["q"].to_numpy(),
        "v": rows["v"].to_numpy(),
        "log_prob": rows["log_prob"].to_numpy(),
    }
