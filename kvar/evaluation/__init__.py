"""Decode and score texts: task metrics with intervals, language models as judges."""

from kvar.evaluation.evaluate import Evaluation, decode, evaluate, response_texts

__all__ = ["Evaluation", "decode", "evaluate", "response_texts"]
