"""Statistics that know no gradient: estimates with intervals, means over seeds, ratios, ranks, shares, power laws."""

from kvar.intervals.fieller import ratio_of_means
from kvar.intervals.interval import Interval, number
from kvar.intervals.jackknife import Estimate, jackknife
from kvar.intervals.over_seeds import mean_with_interval
from kvar.intervals.power_law import Flatness, PowerLaw, flatness, power_law
from kvar.intervals.probability_of_best import candidates, probability_of_best, probability_over_seeds, units_to_resolve
from kvar.intervals.rank_correlation import RankCorrelation, rank_correlation
from kvar.intervals.squared_length import squared_length
from kvar.intervals.wilson import wilson

__all__ = [
    "Estimate", "Flatness", "Interval", "PowerLaw", "RankCorrelation", "candidates", "flatness", "jackknife",
    "mean_with_interval", "number", "power_law", "probability_of_best", "probability_over_seeds", "rank_correlation",
    "ratio_of_means", "squared_length", "units_to_resolve", "wilson",
]  # fmt: skip
