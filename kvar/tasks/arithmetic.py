"""Generated word problems with worked steps and a final ``####`` answer, in GSM8K's form.

Every problem is a chain: a first amount, then ``min_steps`` to ``max_steps`` changes of it, each an addition, a
subtraction, a multiplication or an equal share with whole results between 1 and ``MAX_NUMBER``. The response computes
the chain with one calculator mark per step, in the notation of GSM8K (Cobbe et al., 2021, arXiv 2110.14168):

    prompt   Mia has 12 pens. On Monday Mia finds 7 more. On Tuesday Mia loses 4. How many pens does Mia have?
    target   Monday<<12+7=19>>19 Tuesday<<19-4=15>>15 #### 15

Each step has its day of the week in prompt and response, which helps a small model to align them. The difficulty is the
number of steps; the tokenizer has one token per digit, so that numbers are computed, not recalled.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvar.tasks.answers import answers_match, extract_answer
from kvar.tasks.base import SPLITS, Example
from kvar.tasks.scores.corpus_score import CorpusScore, mean_score, named_score, values_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["MAX_NUMBER", "ArithmeticTask"]

MAX_NUMBER = 99
SIZES = {"train": 100_000, "validation": 1_000, "test": 1_000}

NAMES = ("Mia", "Tom", "Ada", "Ben", "Eva", "Leo", "Zoe", "Sam", "Ida", "Max", "Lea", "Jan")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
THINGS = ("pens", "cups", "hats", "eggs", "nuts", "toys", "figs", "keys", "maps", "pins", "bags", "rings")
ADD = (" finds {n} more.", " buys {n} more.", " gets {n} from a friend.")
SUBTRACT = (" loses {n}.", " sells {n}.", " gives away {n}.")
MULTIPLY = (" then has {n} times as many.", " makes it {n} times as many.")
DIVIDE = (" shares them among {n} boxes and keeps one box.", " keeps one part of {n} equal parts.")
QUESTION = " How many {things} does {name} have?"


class ArithmeticTask:
    """Generated arithmetic word problems; see the module for their form. Every split has its own random stream.

    Args:
        min_steps: least number of steps, at least 1.
        max_steps: largest number of steps, at most 7.
        seed: seed of all splits.

    Raises:
        ValueError: steps out of range.

    Example:
        >>> task = ArithmeticTask(2, 2, seed=0)
        >>> example = task.examples("test", limit=1)[0]
        >>> task.metrics([example.target], [example])
        {'exact_answer': 1.0}
    """

    name = "arithmetic"
    reward = "partial_credit"
    calculator_marks: tuple[str, str] | None = ("<<", ">>")

    def __init__(self, min_steps: int = 2, max_steps: int = 4, seed: int = 0) -> None:
        if not 1 <= min_steps <= max_steps <= 7:
            raise ValueError(
                f"difficulty must satisfy 1 <= min_steps <= max_steps <= 7; got min_steps={min_steps}, "
                f"max_steps={max_steps}."
            )
        self.min_steps, self.max_steps, self.seed = min_steps, max_steps, seed

    def examples(self, split: str, limit: int | None = None) -> list[Example]:
        """Generated problems of one split; the first ``limit`` are the same whatever ``limit`` is.

        Raises:
            ValueError: a split other than train, validation, test.
        """
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is unknown; choose one of: {', '.join(SPLITS)}.")
        stream = random.Random(f"{self.seed}/{split}")
        size = SIZES[split] if limit is None else limit
        return [self._problem(stream) for _ in range(size)]

    def scores(self, predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, CorpusScore]:
        """Share of predictions whose number after ``####`` equals the target's (tolerance 1e-4)."""
        right = [
            answers_match(extract_answer(text), extract_answer(example.target))
            for text, example in zip(predictions, examples, strict=True)
        ]
        return {"exact_answer": mean_score(right, share=True)}

    def metrics(self, predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
        """The values of :meth:`scores`."""
        return values_of(self.scores(predictions, examples))

    def example_scores(
        self, predictions: Sequence[str], examples: Sequence[Example], name: str | None = None
    ) -> list[float]:
        """Partial credit by default: half for the share of right calculations, half for the right answer.

        A calculation is right where the response's i-th ``<<...>>`` equals the target's. "exact_answer" is 0 or 1.

        Raises:
            ValueError: another ``name`` than partial_credit or exact_answer.
        """
        scores = self.scores(predictions, examples)
        shares = [_right_steps(text, example.target) for text, example in zip(predictions, examples, strict=True)]
        credit = mean_score([(a + b) / 2 for a, b in zip(shares, scores["exact_answer"].each, strict=True)])
        return named_score({"partial_credit": credit, **scores}, name or self.reward).each

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """A word-level tokenizer of the templates' words, single digits and signs; decoding restores the text."""
        from kvar.tasks.tokenizers import word_tokenizer

        parts = [*ADD, *SUBTRACT, *MULTIPLY, *DIVIDE, QUESTION, "{name} has {n} {things}. On"]
        text = " ".join(parts).replace("{name}", "").replace("{things}", "").replace("{n}", "")
        words = [*NAMES, *DAYS, *(f" {word}" for word in (*NAMES, *DAYS, *THINGS))]
        return word_tokenizer([text, *words, "0123456789<<+-*/=>>", " #### "])

    def _problem(self, stream: random.Random) -> Example:
        name, things = stream.choice(NAMES), stream.choice(THINGS)
        total = stream.randint(2, MAX_NUMBER)
        prompt, target = f"{name} has {total} {things}.", ""
        for day in DAYS[: stream.randint(self.min_steps, self.max_steps)]:
            text, sign, number, result = _step(stream, total)
            prompt += f" On {day} {name}{text.format(n=number)}"
            target += f" {day}<<{total}{sign}{number}={result}>>{result}"
            total = result
        return Example(prompt + QUESTION.format(things=things, name=name), f"{target[1:]} #### {total}")


def _right_steps(text: str, target: str) -> float:
    """The share of the target's calculations that the text has at the same position."""
    written, truth = (re.findall(r"<<[^<>]*>>", each) for each in (text, target))
    return sum(a == b for a, b in zip(written, truth, strict=False)) / max(len(truth), 1)


def _step(stream: random.Random, total: int) -> tuple[str, str, int, int]:
    """A change that keeps the amount whole and between 1 and ``MAX_NUMBER``: text, sign, number, result."""
    choices: list[tuple[tuple[str, ...], str, list[int]]] = [
        (ADD, "+", list(range(1, MAX_NUMBER - total + 1))),
        (SUBTRACT, "-", list(range(1, total))),
        (MULTIPLY, "*", [n for n in range(2, 10) if total * n <= MAX_NUMBER]),
        (DIVIDE, "/", [n for n in range(2, 10) if total % n == 0 and total > n]),
    ]
    texts, sign, numbers = stream.choice([choice for choice in choices if choice[2]])
    number = stream.choice(numbers)
    result = {"+": total + number, "-": total - number, "*": total * number, "/": total // number}[sign]
    return stream.choice(texts), sign, number, result
