"""Forward passes of student and teacher over a batch's responses, shared by all objectives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kvar.distill.objectives.batch import Batch, Settings, Source
from kvar.returns.precision import at_least_float32
from kvar.rollouts import Rollouts, token_logits
from kvar.rollouts.forward import chosen_log_probs
from kvar.rollouts.trial.truth import check_rollouts

__all__ = ["Passes"]

MAX_LOGITS = 2**27
"""Teacher logits of one pass: 512 MiB in float32."""

Divergence = Callable[[Tensor, Tensor], Tensor]


class Passes:
    """Logits of the student with gradient, and divergences from the teacher.

    Args:
        student: seq2seq or causal model, in training mode or not.
        teacher: a frozen model, or None.
        batch: responses.
        settings: ``teacher_micro_batch`` is read here.
        on_samples: called right after the student's forward pass over its own responses.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        batch: Batch,
        settings: Settings,
        on_samples: Callable[[], None] | None = None,
    ) -> None:
        self.student, self.teacher, self.batch, self.settings = student, teacher, batch, settings
        self.on_samples = on_samples
        self._student: dict[Source, Tensor] = {}
        self._log_probs: dict[Source, Tensor] = {}

    def responses(self, source: Source) -> Rollouts:
        """The responses of one source."""
        return self.batch.responses[source]

    def student_logits(self, source: Source) -> Tensor:
        """(N, T, V) with gradient, over the responses' action set; in float32 at least."""
        if source not in self._student:
            rollouts = self.responses(source)
            check_rollouts(self.student, rollouts)
            self._student[source] = at_least_float32(token_logits(self.student, rollouts))
            if source == "student" and self.on_samples is not None:
                self.on_samples()
        return self._student[source]

    def log_probs(self, source: Source) -> Tensor:
        """(N, T): log pi(y_t | s_t) with gradient, zero where masked."""
        if source not in self._log_probs:
            self._log_probs[source] = chosen_log_probs(self.student_logits(source), self.responses(source))
        return self._log_probs[source]

    def divergence(self, source: Source, divergence: Divergence) -> Tensor:
        """(N, T): ``divergence(teacher's log-probabilities, student's)``, each (n, T, V), over the vocabulary.

        The teacher runs over ``teacher_micro_batch`` responses at a time, by default as many as keep its logits under
        2**27 in number.

        Raises:
            ValueError: an infinite divergence at an unmasked position, where one model rules out a token that the
                other allows.
        """
        assert self.teacher is not None  # the trainer refuses to start otherwise
        rollouts, logits = self.responses(source), self.student_logits(source)
        check_rollouts(self.teacher, rollouts)
        rows = self.settings.teacher_micro_batch or max(1, MAX_LOGITS // max(logits[0].numel(), 1))
        parts = []
        for start in range(0, len(rollouts), rows):
            with torch.no_grad():
                theirs = token_logits(self.teacher, rollouts[start : start + rows])
                log_t = at_least_float32(theirs).log_softmax(dim=-1)
            log_s = logits[start : start + rows].log_softmax(dim=-1)
            parts.append(divergence(log_t, log_s))
            infinite = (parts[-1].detach() == torch.inf) & rollouts.mask[start : start + rows]
            if bool(infinite.any()):
                row, position = (int(i) for i in infinite.nonzero()[0])
                raise ValueError(_ruled_out(log_t[row, position], log_s[row, position], start + row, position))
        return torch.cat(parts)


def _ruled_out(log_t: Tensor, log_s: Tensor, row: int, position: int) -> str:
    """The message of an infinite divergence between two (V,) log-probabilities: the tokens, and the remedy."""
    t, s = log_t == -torch.inf, log_s == -torch.inf
    pairs = (("teacher", "student", t & ~s), ("student", "teacher", s & ~t))
    who = [
        f"the {a} gives token {int(x.nonzero()[0])} a logit of -inf, the {b} does not" for a, b, x in pairs if x.any()
    ]
    return (
        f"the divergence is infinite at response {row}, position {position}: {'; '.join(who)}. Mask the same tokens "
        "in both models, or use an objective that stays finite (js, tvd, or gkd with gkd_beta between 0 and 1)."
    )
