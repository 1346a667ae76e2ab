"""Responses: sampling them, scoring them with a teacher, and their log-probabilities under a student.

``types`` holds the record, ``policy`` the action set. ``forward`` is the forward pass over rollouts; ``sample`` draws
by ``decoding``, ``score`` and ``score_norms`` read logits, in chunks at the ``head`` where they are many. ``text``
encodes prompts, ``trial`` tests a model at first use.
"""

from kvar.rollouts.apart import check_apart
from kvar.rollouts.batches.from_batch import from_batch
from kvar.rollouts.behaviour import behaviour_numbers, check_behaviour, effective_sample_size
from kvar.rollouts.concatenate import concatenate
from kvar.rollouts.decoding.draw import NonFiniteLogitsError
from kvar.rollouts.forward import is_encoder_decoder, token_logits
from kvar.rollouts.lengths import check_lengths
from kvar.rollouts.policy import Policy, policy_of
from kvar.rollouts.references import references
from kvar.rollouts.sample import sample
from kvar.rollouts.samplers.drawn import Sampler, sample_by, sampler_of
from kvar.rollouts.samplers.openai import OpenAISampler
from kvar.rollouts.score import log_probs, score
from kvar.rollouts.score_norms import score_norms
from kvar.rollouts.sharded import whole
from kvar.rollouts.text.encoder import TextEncoder
from kvar.rollouts.text.prompts import Prompts, encode_prompts
from kvar.rollouts.trial.truth import unchecked
from kvar.rollouts.types import Rollouts
from kvar.rollouts.vocabulary import check_same_tokenizer, vocabulary_size

__all__ = [
    "NonFiniteLogitsError",
    "OpenAISampler",
    "Policy",
    "Prompts",
    "Rollouts",
    "Sampler",
    "TextEncoder",
    "behaviour_numbers",
    "check_apart",
    "check_behaviour",
    "check_lengths",
    "check_same_tokenizer",
    "concatenate",
    "effective_sample_size",
    "encode_prompts",
    "from_batch",
    "is_encoder_decoder",
    "log_probs",
    "policy_of",
    "references",
    "sample",
    "sample_by",
    "sampler_of",
    "score",
    "score_norms",
    "token_logits",
    "unchecked",
    "vocabulary_size",
    "whole",
]
