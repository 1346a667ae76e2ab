"""The data's likelihood as a target: sampled and reference responses in one batch.

The gradient of E log pi(y* | x) is over references y*, estimators are over sampled responses. In one batch with both,
every estimator is zero on the references and ``data`` is zero on the samples; inner products over pairs of distinct
prompts then give those of the estimators with the data's gradient, as among the estimators.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kvar.estimators.terms import Terms
from kvar.returns import TokenValues
from kvar.rollouts.concatenate import concatenate
from kvar.rollouts.types import Rollouts

__all__ = ["DATA", "with_references"]

DATA = "data"
"""Name of the estimator sum_t grad log pi(y*_t | x, y*_<t) on the references."""


def with_references(terms: Terms, references: Rollouts) -> Terms:
    """Estimators on sampled responses, and :data:`DATA` on references, over the rows of both.

    ``gradient_moments(student, joint.evidence.rollouts, joint)`` measures them.

    Args:
        terms: E estimators on N sampled trajectories, see :meth:`kvar.estimators.Terms.of`.
        references: L references (:func:`kvar.rollouts.references`), with the sampled ones' ``prompt_index``.

    Returns:
        E + 1 estimators on N + L trajectories, the last called ``data``.

    Raises:
        ValueError: references of prompts without a sampled response, or of another policy.
    """
    sampled, evidence = terms.evidence.rollouts, terms.evidence
    missing = set(references.prompt_index.tolist()) - set(sampled.prompt_index.tolist())
    if missing:
        raise ValueError(
            f"references of prompts {sorted(missing)[:3]} have no sampled response: prompt_index must number the same "
            "prompts in both."
        )
    both = concatenate([sampled, replace(references, log_probs=references.log_probs.to(sampled.log_probs))])
    (n, t), width = both.mask.shape, sampled.mask.shape[1]

    def widened(x: Tensor) -> Tensor:
        """(..., N, T) with zeros for the references' rows."""
        return torch.nn.functional.pad(x, (0, t - width, 0, n - len(sampled)))

    likelihood = both.mask.to(terms.weights)
    likelihood[: len(sampled)] = 0.0
    on = torch.zeros(len(terms.names) + 1, n, dtype=torch.bool)
    on[:-1, : len(sampled)], on[-1, len(sampled) :] = True, True
    values, norms = evidence.values, evidence.score_norms
    joint = replace(
        evidence,
        rollouts=both,
        sampled={name: widened(u) for name, u in evidence.sampled.items()},
        expected={name: widened(u) for name, u in evidence.expected.items()},
        log_probs=widened(evidence.log_probs),
        logit_power=widened(evidence.logit_power),
        values=None if values is None else TokenValues(widened(values.q), widened(values.v)),
        score_norms=None if norms is None else widened(norms),
    )
    return Terms(
        (*terms.names, DATA),
        torch.cat([widened(terms.weights), likelihood[None]]),
        {name: torch.cat([widened(k), torch.zeros_like(likelihood)[None]]) for name, k in terms.exact.items()},
        joint,
        on,
    )
