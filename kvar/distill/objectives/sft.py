"""Supervised fine-tuning: the negative log-likelihood of the data's responses.

loss = - sum_{i,t} log pi(y_it | x_i, y_i,<t), normalised
"""

from __future__ import annotations

from kvar.distill.objectives.base import Loss, Term, objective
from kvar.distill.objectives.batch import Settings, Source
from kvar.distill.objectives.on_policy.entropy import uniform_cross_entropy
from kvar.distill.objectives.passes import Passes

__all__ = ["negative_log_likelihood", "sft"]


def negative_log_likelihood(passes: Passes, settings: Settings, source: Source) -> Loss:
    """Negative log-likelihood of one source's responses under the student.

    With ``label_smoothing_factor`` eps the target is (1 - eps) onehot + eps uniform (Szegedy et al. 2016), uniform
    over the tokens whose logits are above -inf.
    """
    nll = -passes.log_probs(source)
    smoothing = settings.label_smoothing_factor
    if not smoothing:
        return Loss((Term(nll, source),))
    uniform = uniform_cross_entropy(passes.student_logits(source))
    mean = float(nll.detach()[passes.responses(source).mask].mean())
    return Loss((Term((1 - smoothing) * nll + smoothing * uniform, source),), {"nll": mean})


@objective("sft", sources=lambda settings, on_policy: ("data",), teacher=False)
def sft(passes: Passes, settings: Settings) -> Loss:
    """Negative log-likelihood of the data's responses."""
    return negative_log_likelihood(passes, settings, "data")
