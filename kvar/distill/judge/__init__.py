"""Which of two systems answers better, asked of a language model: both orders, strict verdicts, intervals."""

from kvar.distill.judge.compare import compare
from kvar.distill.judge.local import LocalJudge
from kvar.distill.judge.question import CRITERION, Pair, Question, quote
from kvar.distill.judge.request import Transport
from kvar.distill.judge.server import KEY_VARIABLE, ServerJudge
from kvar.distill.judge.verdict import Answer, Judge, JudgeError, parse_verdict
from kvar.distill.judge.win_rate import Comparison
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
    "Transport",
    "compare",
    "parse_verdict",
    "quote",
    "wilson",
]
