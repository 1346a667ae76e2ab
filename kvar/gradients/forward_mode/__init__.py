"""The ``jvp`` engine: scores along random directions, by forward-mode differentiation."""
