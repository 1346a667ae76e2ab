"""The return kernel that serves a step best, fitted to a measurement; theory.md (25).

``family`` finds the estimators that differ in their number of lags alone, ``fit`` solves for the weights, ``cross_fit``
estimates the efficiency that they have on prompts they were not fitted to, ``optimal_kernel`` puts these together, and
``choose`` decides whether to change the estimator that is in use.
"""
