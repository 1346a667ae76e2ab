"""Trying a model at first use: what is sampled and scored is what it says of each prefix alone.

``truth`` decides, from the small ``cases`` and, for long rollouts, from ``longer``.
"""
