"""Ask a judge about pairs of responses in both orders; a killed comparison resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from kvar.evaluation.judge.journal import Journal
from kvar.evaluation.judge.question import CRITERION, Pair, both_orders
from kvar.evaluation.judge.verdict import Judge, JudgeError, Verdict
from kvar.evaluation.judge.win_rate import Comparison, summarise

__all__ = ["compare"]


def compare(
    judge: Judge,
    pairs: Sequence[Pair],
    path: str | Path,
    *,
    criterion: str = CRITERION,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Win rate of the first system of ``pairs`` over the second.

    Every pair is asked in both orders; equal texts are ties without asking. Each verdict is saved at once, and a killed
    comparison that is started again asks only the missing questions.

    Args:
        judge: answers the questions.
        pairs: pairs of responses; prompts are the independent units of the interval.
        path: JSONL file of the verdicts.
        criterion: what "better" means, in the question.
        progress: called with (answers so far, answers in all).

    Raises:
        JudgeError: no pairs, a file of another comparison, or a judge that cannot be asked; saved verdicts are kept.
    """
    if not pairs:
        raise JudgeError("pairs is empty: nothing to compare.")
    texts = json.dumps([[p.prompt, p.first, p.second] for p in pairs])
    header = {"judge": judge.name, "criterion": criterion, "texts": hashlib.sha256(texts.encode()).hexdigest()[:16]}
    differing = [index for index, pair in enumerate(pairs) if pair.first != pair.second]
    with closing(Journal(Path(path), header)) as journal:
        missing = [
            question
            for index in differing
            for question in both_orders(index, pairs[index], criterion=criterion, markers=judge.markers)
            if (index, question.swapped) not in journal.answers
        ]
        for question, answer in judge.answers(missing) if missing else ():
            journal.append(question, answer)
            if progress is not None:
                progress(len(journal.answers), 2 * len(differing))
        verdicts: dict[int, tuple[Verdict, Verdict]] = {
            index: (journal.answers[index, False].verdict, journal.answers[index, True].verdict) for index in differing
        }
    return summarise(verdicts, identical=len(pairs) - len(differing))
