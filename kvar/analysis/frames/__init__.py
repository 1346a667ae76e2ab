"""Tidy frames of statistics: of one measurement, of recorded runs, of several seeds.

``summary`` forms every statistic of one parameter group, ``measured`` those of all groups of a measurement,
``recorded`` those of all measurements of a run; ``across_seeds`` combines runs. ``statistics_frame`` names the columns
and takes rows out. ``trajectory_batches`` reads recorded trajectories for statistics that need no gradient.
"""
