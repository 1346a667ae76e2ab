"""What a step should be made of for a budget of tokens: the estimator, prompts x responses, and whether larger pays."""

from __future__ import annotations

from kvar.results.advice.advice import AdviceNumbers, advice_numbers
from kvar.results.advice.estimators import Ranking, Row
from kvar.results.advice.overtaking import Overtaking
from kvar.results.advice.splits import Split, SplitRow

__all__ = ["AdviceNumbers", "Overtaking", "Ranking", "Row", "Split", "SplitRow", "advice_numbers"]
