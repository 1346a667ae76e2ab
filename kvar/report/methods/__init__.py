"""A grid study by method: means over seeds, paired differences, estimators beside scores, the paper's table."""
