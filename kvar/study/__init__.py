"""Runs and studies: settings, one run, a grid of runs, the demo."""
