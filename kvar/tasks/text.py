"""Prompt -> response data scored by chrF: the general task, and the base of tasks that read files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvar.tasks.base import SPLITS, Example
from kvar.tasks.data import Split, has_split, open_split
from kvar.tasks.scores.bleu import chrf_score
from kvar.tasks.scores.corpus_score import CorpusScore, named_score, values_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["TextTask"]


class TextTask:
    """Pairs of a prompt and a reference from files or a hub data set.

    Args:
        data: folder with ``train``, ``validation`` and ``test`` files, or a hub name.
        source_field: field of the prompt; a dot reads a nested field ("translation.en").
        target_field: field of the reference, likewise.
        prefix: put in front of every prompt; None for the class's default.
        vocabulary: tokens of the tokenizer that ``build_tokenizer`` trains.
        held_out: rows at the end of train that become the validation split where there is none.
        held_out_test: likewise for the test split; its rows come after the validation rows.
        subset: subset ("config") of a hub data set that has several.
        skip_empty: leave out rows with an empty field instead of refusing them.
    """

    name = "text"
    default_prefix = ""
    reward = "chrf"
    """The default score of :meth:`example_scores`."""
    calculator_marks: tuple[str, str] | None = None

    def __init__(
        self,
        data: str,
        source_field: str,
        target_field: str,
        *,
        prefix: str | None = None,
        vocabulary: int = 4000,
        held_out: int | None = None,
        held_out_test: int | None = None,
        subset: str | None = None,
        skip_empty: bool = False,
    ) -> None:
        self.data, self.source_field, self.target_field = data, source_field, target_field
        self.prefix = self.default_prefix if prefix is None else prefix
        self.vocabulary, self.held_out, self.held_out_test = vocabulary, held_out or 0, held_out_test or 0
        self.subset, self.skip_empty = subset, skip_empty
        for name, count in (("held_out", self.held_out), ("held_out_test", self.held_out_test)):
            if count < 0:
                raise ValueError(f"{name} must be a number of rows, 0 or more; got {count}.")

    def examples(self, split: str, limit: int | None = None) -> list[Example]:
        """The split's examples in file order; a test split is read for "test" only.

        Raises:
            ValueError: an unknown or missing split, or bad rows (see ``kvar.tasks.data.Split.pairs``).
        """
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is unknown; choose one of: {', '.join(SPLITS)}.")
        rows, start, stop = self._place(split)
        if limit is not None and not self.skip_empty:
            stop = min(stop, start + limit)
        pairs = rows.pairs(self.source_field, self.target_field, start=start, stop=stop, skip_empty=self.skip_empty)
        return [Example(self.prefix + source, target) for source, target in pairs[:limit]]

    def scores(self, predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, CorpusScore]:
        """Corpus chrF (sacreBLEU's), 0 to 100."""
        return {"chrf": chrf_score(predictions, [example.target for example in examples])}

    def metrics(self, predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
        """The values of :meth:`scores`."""
        return values_of(self.scores(predictions, examples))

    def example_scores(
        self, predictions: Sequence[str], examples: Sequence[Example], name: str | None = None
    ) -> list[float]:
        """The score called ``name`` of every example on its own, in that score's scale; by default ``reward``.

        Raises:
            ValueError: no such score.
        """
        return named_score(self.scores(predictions, examples), name or self.reward).each

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """A byte-level BPE trained on the prompts and targets of the train split."""
        from kvar.tasks.tokenizers import byte_pair_tokenizer

        texts = [text for example in self.examples("train") for text in (example.prompt, example.target)]
        return byte_pair_tokenizer(texts, self.vocabulary)

    def _place(self, split: str) -> tuple[Split, int, int]:
        """The rows that contain a split, and its start and stop in them."""
        if split != "train":
            rows = open_split(self.data, split, self.subset)
            if rows is not None:
                return rows, 0, len(rows)
        train = open_split(self.data, "train", self.subset)
        cut = {"validation": self.held_out, "test": self.held_out_test}
        if train is None or (split != "train" and not cut[split]):
            option = {"train": "", "validation": " or set held_out", "test": " or set held_out_test"}[split]
            raise ValueError(f"data {self.data!r} has no {split!r} split; add a {split}.jsonl file{option}.")
        counts = {name: 0 if not cut[name] or has_split(self.data, name, self.subset) else cut[name] for name in cut}
        if not len(train):
            return train, 0, 0  # Split.pairs raises the error
        first = len(train) - counts["validation"] - counts["test"]
        if first < 1:
            raise ValueError(
                f"{train.origin} holds {len(train)} rows; held_out={self.held_out} and "
                f"held_out_test={self.held_out_test} leave none to train on. Lower them."
            )
        starts = {"train": 0, "validation": first, "test": first + counts["validation"]}
        stops = {"train": first, "validation": first + counts["validation"], "test": len(train)}
        return train, starts[split], stops[split]
