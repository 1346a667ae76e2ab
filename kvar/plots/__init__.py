"""Figures: a tidy table in, matplotlib axes out, one figure a function.

Most read a statistics frame (the columns :data:`COLUMNS`), of one run, of several students, or of several seeds after
:func:`kvar.analysis.across_seeds`. They draw on ``ax`` where it is given, else on a fresh figure ``width`` inches wide,
and return the axes. Figures with a panel a task return the figure. :func:`save` writes either. What a table lacks is a
ValueError that names it; the table and matplotlib's global settings are left as they are.
"""

from __future__ import annotations

from kvar.analysis.frames.statistics_frame import COLUMNS
from kvar.analysis.statistic_table import MEANINGS as STATISTICS
from kvar.plots.best_against_k import efficiency_against_k, mse_against_k
from kvar.plots.best_k_over_size import best_k_over_size
from kvar.plots.bias_against_variance import bias_against_variance
from kvar.plots.breakdown_of_variance import breakdown_of_variance
from kvar.plots.gap_autocorrelation import gap_autocorrelation
from kvar.plots.kernels_over_tasks import kernels_over_tasks
from kvar.plots.learning_curves import learning_curves
from kvar.plots.parts.save import save
from kvar.plots.parts.style import COLUMN_WIDTH, DOUBLE_WIDTH, context
from kvar.plots.score_against_variance import score_against_variance
from kvar.plots.snr_against_k import snr_against_k
from kvar.plots.theory_beside_measurement import theory_beside_measurement
from kvar.plots.toward_over_training import toward_over_training
from kvar.plots.variance_against_k import variance_against_k
from kvar.plots.variance_against_size import variance_against_size
from kvar.plots.variance_by_layer import variance_by_layer
from kvar.plots.variance_by_position import variance_by_position
from kvar.plots.variance_over_training import variance_over_training
from kvar.plots.within_between_shares import within_between_shares

__all__ = [
    "COLUMNS", "COLUMN_WIDTH", "DOUBLE_WIDTH", "STATISTICS", "best_k_over_size", "bias_against_variance",
    "breakdown_of_variance", "context", "efficiency_against_k", "gap_autocorrelation", "kernels_over_tasks",
    "learning_curves", "mse_against_k", "save", "score_against_variance", "snr_against_k", "theory_beside_measurement",
    "toward_over_training", "variance_against_k", "variance_against_size", "variance_by_layer", "variance_by_position",
    "variance_over_training", "within_between_shares",
]  # fmt: skip
