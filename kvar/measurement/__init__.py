"""A measurement: rollouts, the teacher's values and gradient moments; shown, saved and loaded."""

from kvar.measurement.data import MeasurementData
from kvar.measurement.folder import is_measurement
from kvar.measurement.load import load_measurement
from kvar.measurement.measurement import Measurement
from kvar.measurement.records import record, response_numbers

__all__ = ["Measurement", "MeasurementData", "is_measurement", "load_measurement", "record", "response_numbers"]
