"""Conversion of measurements to the tidy frames of ``kvar.records`` and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kvar.gradients.moments import GradientMoments, GroupMoments
from kvar.returns import TokenValues
from kvar.rollouts import Rollouts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["gradient_frame", "moments_from_frames", "prompt_frame", "trajectory_frame", "values_from_frame"]


def trajectory_frame(rollouts: Rollouts, values: TokenValues, *, probe: str, step: int) -> pd.DataFrame:
    """One row per response token: the table ``trajectories`` of ``kvar.records``."""
    import pandas as pd

    mask = rollouts.mask.cpu().numpy()
    trajectory, position = np.nonzero(mask)

    def at(x: Tensor) -> np.ndarray:
        return x.detach().cpu().numpy()[mask]

    return pd.DataFrame(
        {
            "probe": probe,
            "step": step,
            "trajectory": trajectory,
            "prompt": rollouts.prompt_index.cpu().numpy()[trajectory],
            "position": position,
            "token": at(rollouts.tokens),
            "q": at(values.q).astype(np.float64),
            "v": at(values.v).astype(np.float64),
            "log_prob": at(rollouts.log_probs).astype(np.float64),
            "length": rollouts.lengths.cpu().numpy()[trajectory],
            "finished": rollouts.finished.cpu().numpy()[trajectory],
        }
    )


def gradient_frame(moments: GradientMoments, *, probe: str, step: int) -> pd.DataFrame:
    """One row per group, pair of estimators and trajectory: the table ``gradients``; diagonal pairs only for norms.

    Trajectories that an estimator does not use have no rows of it.
    """
    import pandas as pd

    names = np.array(moments.names, dtype=object)
    prompts = moments.prompt_index.numpy()
    frames = []
    for group in moments:
        part = moments[group]
        if part.pair is None or part.cross is None:
            e = f = np.arange(len(names))
            pair = part.sq_norm.numpy()
            cross = np.full_like(pair, np.nan)
        else:
            e, f = (index.ravel() for index in np.indices((len(names), len(names))))
            pair, cross = part.pair.numpy()[e, f], part.cross.numpy()[e, f]
        n = pair.shape[1]
        kept = slice(None) if moments.on is None else moments.on.numpy()[e].ravel()
        frames.append(
            pd.DataFrame(
                {
                    "probe": probe,
                    "step": step,
                    "group": group,
                    "estimator": np.repeat(names[e], n),
                    "other": np.repeat(names[f], n),
                    "trajectory": np.tile(np.arange(n), len(e)),
                    "prompt": np.tile(prompts, len(e)),
                    "pair": pair.ravel(),
                    "cross": cross.ravel(),
                }
            )[kept]
        )
    return pd.concat(frames, ignore_index=True)


def prompt_frame(moments: GradientMoments, *, probe: str, step: int) -> pd.DataFrame:
    """One row per group, pair of estimators and prompt: the table ``prompt_gradients`` (empty for norms only)."""
    import pandas as pd

    names = np.array(moments.names, dtype=object)
    prompts = moments.prompts.numpy()
    e, f = (index.ravel() for index in np.indices((len(names), len(names))))
    frames = [
        pd.DataFrame(
            {
                "probe": probe,
                "step": step,
                "group": group,
                "estimator": np.repeat(names[e], len(prompts)),
                "other": np.repeat(names[f], len(prompts)),
                "prompt": np.tile(prompts, len(e)),
                "prompt_pair": moments[group].prompt_pair.numpy()[e, f].ravel(),  # type: ignore[union-attr]
            }
        )
        for group in moments
        if moments[group].prompt_pair is not None
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def moments_from_frames(gradients: pd.DataFrame, prompt_gradients: pd.DataFrame) -> GradientMoments:
    """The moments of one probe at one step, from its rows of the two tables.

    Args:
        gradients: rows of one (probe, step), all groups.
        prompt_gradients: rows of the same (probe, step).

    Returns:
        The moments of ``gradient_moments``; ``mean_pair`` is recomputed as the trajectories' mean of ``cross``.

    Raises:
        ValueError: no rows, rows of several probes or steps, or norms-only records (their mean pairs were not kept).
    """
    if not len(gradients):
        raise ValueError("gradients has no rows: this run holds no probe at that step.")
    for column in ("probe", "step"):
        if gradients[column].nunique() > 1:
            raise ValueError(f"gradients holds several values of {column}; select the rows of one.")
    if bool(gradients["cross"].isna().any()):
        raise ValueError("gradients holds norms only (cross is missing); probe with fields='all' for statistics.")
    names = _values_of(gradients["estimator"])
    group_names = _values_of(gradients["group"])
    first = gradients[_code(gradients["group"], group_names) == 0]
    estimator = _code(first["estimator"], names)
    diagonal = estimator == _code(first["other"], names)
    order, place, where = np.unique(first["trajectory"].to_numpy()[diagonal], return_index=True, return_inverse=True)
    index = first["prompt"].to_numpy()[diagonal][place]
    on = np.zeros((len(names), len(order)), dtype=bool)
    on[estimator[diagonal], where] = True
    groups = {}
    for number, group in enumerate(group_names):
        rows = gradients[_code(gradients["group"], group_names) == number]
        pair, cross = (_cube(rows, names, "trajectory", column, order) for column in ("pair", "cross"))
        prompts = np.unique(index)
        prompt_rows = prompt_gradients[_code(prompt_gradients["group"], group_names) == number]
        groups[group] = GroupMoments.of_products(
            mean_pair=cross.mean(dim=-1),
            cross=cross,
            pair=pair,
            prompt_pair=_cube(prompt_rows, names, "prompt", "prompt_pair", prompts) if len(prompt_rows) else None,
        )
    partly = None if on.all() else torch.from_numpy(on)
    return GradientMoments(tuple(names), groups, torch.as_tensor(np.array(index)), partly)


def values_from_frame(trajectories: pd.DataFrame) -> tuple[TokenValues, Tensor]:
    """Teacher values and mask (N, T) of one probe at one step, from its rows of the table ``trajectories``."""
    rows = trajectories["trajectory"].to_numpy()
    columns = trajectories["position"].to_numpy()
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    q, v, mask = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool)
    q[rows, columns], v[rows, columns], mask[rows, columns] = trajectories["q"], trajectories["v"], True
    return TokenValues(torch.from_numpy(q), torch.from_numpy(v)), torch.from_numpy(mask)


def _values_of(column: pd.Series) -> list[str]:
    """A column's distinct texts in the order of their first appearance."""
    return [str(value) for value in column.unique()]


def _code(column: pd.Series, names: list[str]) -> np.ndarray:
    """Each row's index in ``names``, -1 for none; by category if the column is categorical, as in records."""
    import pandas as pd

    place = {name: i for i, name in enumerate(names)}
    if isinstance(column.dtype, pd.CategoricalDtype):
        table = np.array([place.get(str(name), -1) for name in column.cat.categories] + [-1])
        return np.asarray(table[column.cat.codes.to_numpy()])
    return np.array([place.get(str(name), -1) for name in column], dtype=int)


def _cube(rows: pd.DataFrame, names: list[str], by: str, column: str, order: np.ndarray) -> Tensor:
    """(E, E, len(order)); 0 for missing rows, where the estimator has no gradient."""
    out = np.zeros((len(names), len(names), len(order)))
    where = np.searchsorted(order, rows[by].to_numpy())
    out[_code(rows["estimator"], names), _code(rows["other"], names), where] = rows[column].to_numpy()
    return torch.from_numpy(out)
