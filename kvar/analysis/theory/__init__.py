"""Theory held against measurement: predictions T0 and T1, their calibration, why they fail, and bounds."""

from kvar.analysis.theory.bounds import deviation, gap_deviation
from kvar.analysis.theory.breakdown import TERMS, breakdown
from kvar.analysis.theory.calibration import calibrate
from kvar.analysis.theory.influence import weighted_replicates
from kvar.analysis.theory.prediction import predict

__all__ = ["TERMS", "breakdown", "calibrate", "deviation", "gap_deviation", "predict", "weighted_replicates"]
