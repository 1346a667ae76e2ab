"""``kvar evaluate`` and ``kvar judge``: evaluations of runs, their output and their tables."""
