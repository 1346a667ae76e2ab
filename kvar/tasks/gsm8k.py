"""GSM8K: word problems with worked steps, calculator marks and a final ``####`` answer (arXiv 2110.14168)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvar.tasks.answers import answers_match, extract_answer, last_number
from kvar.tasks.base import Example
from kvar.tasks.scores.corpus_score import CorpusScore, mean_score
from kvar.tasks.text import TextTask

__all__ = ["GSM8KTask"]


class GSM8KTask(TextTask):
    """Questions and worked answers in GSM8K's form, which has no validation split: the last rows of train serve as one.

    Args:
        data: folder or hub name.
        source_field: field of the question.
        target_field: field of the worked answer.
        held_out: rows at the end of train that serve as validation, by position.
        calculator_marks: what opens and closes a calculation. "<<" and ">>" are GSM8K's own; T5's tokenizer has no
            "<", so give its students others such as ("[[", "]]"): targets are rewritten with them.
        max_calculations: keep the problems whose worked answer has one to this many calculations; None keeps all. The
            held-out rows are set apart first, so that no choice of it moves a problem from one split to another.
        options: as of :class:`TextTask`.

    Raises:
        ValueError: a mark that is empty or holds what occurs in calculations, or max_calculations below 1.
    """

    name = "gsm8k"
    reward = "exact_answer"

    def __init__(
        self,
        data: str,
        source_field: str = "question",
        target_field: str = "answer",
        *,
        held_out: int | None = 500,
        calculator_marks: tuple[str, str] = ("<<", ">>"),
        max_calculations: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(data, source_field, target_field, held_out=held_out, **options)
        if any(not mark or set(mark) & set("0123456789.,+-*/()%= ") for mark in calculator_marks):
            raise ValueError(
                f"calculator_marks must be two marks without digits, blanks or + - * / ( ) . , % =; got "
                f"{calculator_marks}. GSM8K's own are << and >>."
            )
        if max_calculations is not None and max_calculations < 1:
            raise ValueError(
                f"max_calculations must be at least 1, or left out for all problems; got {max_calculations}."
            )
        self.calculator_marks = self._marks = calculator_marks
        self.max_calculations = max_calculations

    def examples(self, split: str, limit: int | None = None) -> list[Example]:
        """The split's examples of as many calculations as are kept, with the calculator's marks as chosen.

        Raises:
            ValueError: see :meth:`TextTask.examples`; or no problem is short enough.
        """
        if self.max_calculations is None:
            examples = super().examples(split, limit)
        else:
            every = super().examples(split)
            examples = [e for e in every if 1 <= e.target.count("<<") <= self.max_calculations][:limit]
            if not examples:
                raise ValueError(
                    f"max_calculations {self.max_calculations} leaves no {split} problem of {self.data}; raise it."
                )
        opening, closing = self._marks
        if (opening, closing) == ("<<", ">>"):
            return examples
        return [Example(e.prompt, e.target.replace("<<", opening).replace(">>", closing)) for e in examples]

    def scores(self, predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, CorpusScore]:
        """Shares of right answers, tolerance 1e-4.

        exact_answer takes the number behind ``####``, or the last number of a response that has no such mark;
        exact_answer_marked counts the former only, as the reference recipe does.
        """
        truth = [extract_answer(example.target) for example in examples]
        marked = [extract_answer(text) for text in predictions]
        answers = [
            last_number(t) if m is None and "####" not in t else m for m, t in zip(marked, predictions, strict=True)
        ]
        return {
            "exact_answer": _share(answers, truth),
            "exact_answer_marked": _share(marked, truth),
        }


def _share(answers: Sequence[float | None], truth: Sequence[float | None]) -> CorpusScore:
    return mean_score([answers_match(a, b) for a, b in zip(answers, truth, strict=True)], share=True)
