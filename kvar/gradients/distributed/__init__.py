"""Moments over the trajectories of several processes."""
