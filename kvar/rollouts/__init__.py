"""Responses: sampling them, scoring them with a teacher, and their log-probabilities under a student."""

from kvar.rollouts.forward import is_encoder_decoder, token_logits
from kvar.rollouts.types import Rollouts

__all__ = ["Rollouts", "is_encoder_decoder", "token_logits"]
