"""Which of two systems answers better, asked of a language model: both orders, strict verdicts, intervals."""

from kvar.evaluation.judge.compare import compare
from kvar.evaluation.judge.local import LocalJudge
from kvar.evaluation.judge.question import CRITERION, Pair, Question, quote
from kvar.evaluation.judge.server import KEY_VARIABLE, ServerJudge
from kvar.evaluation.judge.verdict import Answer, Judge, JudgeError, parse_verdict
from kvar.evaluation.judge.win_rate import Comparison
from kvar.intervals import wilson

__all__ = [
    "CRITERION",
    "KEY_VARIABLE",
    "Answer",
    "Comparison",
    "Judge",
    "JudgeError",
    "LocalJudge",
    "Pair",
    "Question",
    "ServerJudge",
    "compare",
    "parse_verdict",
    "quote",
    "wilson",
]
