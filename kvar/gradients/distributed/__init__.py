"""Moments over the trajectories of several processes.

``gathered_moments`` measures on every process and completes what depends on the mean over all; ``processes`` holds the
exchange between them.
"""
