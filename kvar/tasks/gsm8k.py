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
    """Questions and worked answers in GSM8K's form; the last rows of train serve as validation split.

    Args:
        data: folder or hub name.
        source_field: field of the question.
        target_field: field of the worked answer.
        held_out: rows at the end of train that serve as validation, by position.
        calculator_marks: opening and closing mark of a calculation. GSM8K has "<<" and ">>"; T5's tokenizer has no
            "<", so give T5 students others such as ("[[", "]]"): targets are rewritten with them.
        max_calculations: keep the problems whose worked answer has one to this many calculations; None keeps all. It
            applies within a split, so it moves no problem from one split to another.
        options: as of :class:`TextTask`.

    Raises:
        ValueError: a mark that is empty or contains characters of calculations, or max_calculations below 1.
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
        """The split's examples with at most ``max_calculations`` calculations, in the chosen marks.

        Raises:
            ValueError: as of :meth:`TextTask.examples`, or no problem is short enough.
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

        exact_answer reads the number after ``####``, or the last number of a response without that mark;
        exact_answer_marked reads the former only, as the reference recipe does.
        """
        truth = [extract_answer(example.target) for example in examples]
        marked = [extract_answer(text) for text in predictions]
        answers = [
            last_number(t) if m is None and "####" not in t else m for m, t in zip(marked, predictions, strict=True)
        ]
        return {"exact_answer": _share(answers, truth), "exact_answer_marked": _share(marked, truth)}


def _share(answers: Sequence[float | None], truth: Sequence[float | None]) -> CorpusScore:
    return mean_score([answers_match(a, b) for a, b in zip(answers, truth, strict=True)], share=True)
