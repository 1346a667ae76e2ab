"""Statistics of one optimiser step's gradient under a design of M prompts x R rollouts.

``design`` holds the variance of such a step, (between + within / R) / M. ``mse`` adds the squared bias to it,
``efficiency`` compares directions, and ``best_k`` asks which estimator wins by either. ``snr``, ``noise_scale`` and
``batch_size_tests`` compare signal and noise of a batch, without a reference estimator.
"""
