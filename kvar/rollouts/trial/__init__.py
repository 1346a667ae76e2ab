"""The trial of a model at first use: sampling and scoring must agree with its logits for each prefix alone.

``truth`` decides, from the small ``cases`` and, for long rollouts, from ``longer``.
"""
