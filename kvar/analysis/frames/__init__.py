"""Tidy frames of statistics: of one measurement, of recorded runs, of several seeds."""
