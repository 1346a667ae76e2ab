"""One run from its settings: the parts, the checks before it starts, training, probing, the end."""
