"""A study file's grid of runs: its cells, its plan, its folder, and running it."""
