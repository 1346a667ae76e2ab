"""The ``one-pass`` engine: one forward pass, one backward pass an estimator, inner products layer by layer."""
