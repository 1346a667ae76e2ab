"""Statistics of gradient moments, with intervals; theory and exact ground truth to hold them against.

A statistic is formed in two steps. :mod:`kvar.analysis.replicates` adds up a measurement once, with all units and with
each unit left out; functions named ``*_of`` take these sums and return a (1 + U, E) array. The public function of the
same name, without ``_of``, does both and adds the jackknife interval. Statistics that are wanted together share one
:class:`~kvar.analysis.replicates.Replicates`.

* ``statistic_table``: name, meaning, scales and sign of every statistic.
* ``unit_sums``, ``replicates``, ``bca``: the sums, and the two kinds of intervals.
* one file a statistic of one trajectory's gradient (``trace_covariance``, ``signal``, ``bias``, ``decompose``, ...).
* ``step``: statistics of the gradient of a step of M prompts x R rollouts.
* ``optimal``: the kernel fitted to a measurement.
* ``frames``: all statistics of a measurement, of recorded runs, of several seeds, as tidy tables.
* ``return_statistics``, ``output_layer``: statistics of records that hold no gradient of all parameters.
* ``proxies``: what trainers log in place of a variance, to be held against it.
* ``theory``, ``exact``: predictions and bounds; the enumerable token MDP.
"""

from kvar.analysis import exact, proxies, theory
from kvar.analysis.bca import bca
from kvar.analysis.bias import bias
from kvar.analysis.by_position import by_position
from kvar.analysis.cosine import cosine
from kvar.analysis.decompose import Decomposition, decompose, within_share
from kvar.analysis.frames.across_seeds import across_seeds
from kvar.analysis.frames.summary import summarise
from kvar.analysis.frames.toward_over_training import toward_over_training
from kvar.analysis.optimal.choose import Choice, choose
from kvar.analysis.optimal.optimal_kernel import OptimalKernel, optimal_kernel
from kvar.analysis.paired import difference_to, ratio_to
from kvar.analysis.plan import plan
from kvar.analysis.score_power import score_power, variance_per_score_power
from kvar.analysis.signal import signal
from kvar.analysis.step.batch_size_tests import inner_product_test, norm_test
from kvar.analysis.step.best_k import best_k
from kvar.analysis.step.efficiency import efficiency
from kvar.analysis.step.mse import mse
from kvar.analysis.step.noise_scale import noise_scale, relative_variance
from kvar.analysis.step.overtakes import overtakes
from kvar.analysis.step.snr import snr
from kvar.analysis.step.split import optimal_rollouts
from kvar.analysis.targets import toward, units_for_sign
from kvar.analysis.trace_covariance import trace_covariance
from kvar.intervals.jackknife import Estimate
from kvar.intervals.over_seeds import mean_with_interval
from kvar.intervals.power_law import Flatness, PowerLaw, flatness, power_law

__all__ = [
    "Choice", "Decomposition", "Estimate", "Flatness", "OptimalKernel", "PowerLaw", "across_seeds", "bca", "best_k",
    "bias", "by_position", "choose", "cosine", "decompose", "difference_to", "efficiency", "exact", "flatness",
    "inner_product_test", "mean_with_interval", "mse", "noise_scale", "norm_test", "optimal_kernel",
    "optimal_rollouts", "overtakes", "plan", "power_law", "proxies", "ratio_to", "relative_variance", "score_power",
    "signal", "snr", "summarise", "theory", "toward", "toward_over_training", "trace_covariance", "units_for_sign",
    "variance_per_score_power", "within_share",
]  # fmt: skip
