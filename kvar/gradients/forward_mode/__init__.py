"""The ``jvp`` engine: scores along random directions, by forward-mode differentiation.

Read ``engine`` first: directions, the derivative along one of them, and the moments from many. ``projections`` holds
the projected scores, from which any token weights are evaluated without the model.
"""
