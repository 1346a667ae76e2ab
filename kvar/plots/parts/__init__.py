"""What figures share: axes, ticks, labels, lines with intervals, the look, writing to disk."""
