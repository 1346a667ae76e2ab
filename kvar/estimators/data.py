"""The data's likelihood as a target: sampled and reference responses in one batch.

The gradient of E log pi(y* | x) on the references y* lives on other responses than those that estimators sample. In one
batch with both, every estimator is zero on the references and ``data`` is zero on the samples; inner products over
pairs of distinct prompts are then those of the estimators with the data's gradient, as among the estimators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kvar.estimators.estimator import Estimator
from kvar.estimators.evidence import Evidence
from kvar.estimators.terms import Terms
from kvar.returns import TokenValues
from kvar.rollouts.types import Rollouts, concatenate

__all__ = ["DATA", "with_references"]

DATA = "data"
"""Name of the estimator sum_t grad log pi(y*_t | x, y*_<t) on the references."""


def with_references(evidence: Evidence, estimators: Sequence[Estimator], references: Rollouts) -> Terms:
    """Terms of estimators on sampled responses, and of :data:`DATA` on references, on the rows of both.

    ``gradient_moments(student, terms.evidence.rollouts, terms)`` measures them.

    Args:
        evidence: of N sampled trajectories.
        estimators: E of them; may be empty.
        references: of L references (:func:`kvar.rollouts.references`); ``prompt_index`` as the sampled ones have it.

    Returns:
        E + 1 estimators on N + L trajectories, the last called ``data``.

    Raises:
        ValueError: references of other prompts or of another policy, or evidence that lacks what an estimator needs.
    """
    sampled = evidence.rollouts
    missing = set(references.prompt_index.tolist()) - set(sampled.prompt_index.tolist())
    if missing:
        raise ValueError(
            f"references of prompts {sorted(missing)[:3]} have no sampled response: prompt_index must number the same "
            "prompts in both."
        )
    both = concatenate([sampled, replace(references, log_probs=references.log_probs.to(sampled.log_probs))])
    n, t = both.mask.shape
    width = sampled.mask.shape[1]

    def widened(x: Tensor) -> Tensor:
        """(..., N, T) with zeros for the references' rows."""
        return torch.nn.functional.pad(x, (0, t - width, 0, n - len(sampled)))

    terms = Terms.of(estimators, evidence) if estimators else None
    likelihood = both.mask.double()
    likelihood[: len(sampled)] = 0.0
    names, weights = (DATA,), likelihood[None]
    exact: dict[str, Tensor] = {}
    if terms is not None:
        names = (*terms.names, DATA)
        weights = torch.cat([widened(terms.weights), weights.to(terms.weights)])
        exact = {name: torch.cat([widened(k), torch.zeros_like(weights[:1])]) for name, k in terms.exact.items()}
    on = torch.zeros(len(names), n, dtype=torch.bool)
    on[:-1, : len(sampled)] = True
    on[-1, len(sampled) :] = True
    values = evidence.values
    joined = replace(
        evidence,
        rollouts=both,
        sampled={name: widened(u) for name, u in evidence.sampled.items()},
        expected={name: widened(u) for name, u in evidence.expected.items()},
        log_probs=widened(evidence.log_probs),
        logit_power=widened(evidence.logit_power),
        values=None if values is None else TokenValues(widened(values.q), widened(values.v)),
        score_norms=None if evidence.score_norms is None else widened(evidence.score_norms),
    )
    return Terms(names, weights, exact, joined, on)
