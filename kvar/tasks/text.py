"""Any prompt -> response data, scored by chrF: the general task, and the base of those that read files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvar.tasks.base import SPLITS, Example
from kvar.tasks.data import read_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["TextTask"]


class TextTask:
    """Pairs of a prompt and a reference from files or a hub data set.

    Args:
        data: folder with ``train``, ``validation`` and ``test`` files, or a hub name.
        source_field: field of the prompt.
        target_field: field of the reference.
        prefix: put in front of every prompt; None for the class's default.
        vocabulary: tokens of the tokenizer that ``build_tokenizer`` trains.
        held_out: without a validation split, the last this many rows of train become it, by position.
    """

    name = "text"
    default_prefix = ""

    def __init__(
        self,
        data: str,
        source_field: str,
        target_field: str,
        *,
        prefix: str | None = None,
        vocabulary: int = 4000,
        held_out: int | None = None,
    ) -> None:
        self.data, self.source_field, self.target_field = data, source_field, target_field
        self.prefix = self.default_prefix if prefix is None else prefix
        self.vocabulary, self.held_out = vocabulary, held_out

    def examples(self, split: str, limit: int | None = None) -> list[Example]:
        """The split's examples in file order.

        Raises:
            ValueError: an unknown or missing split, or bad rows (see ``kvar.tasks.data.read_pairs``).
        """
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is unknown; choose one of: {', '.join(SPLITS)}.")
        pairs = read_pairs(self.data, split, self.source_field, self.target_field)
        if self.held_out and split in ("train", "validation"):
            stored = read_pairs(self.data, "validation", self.source_field, self.target_field)
            if stored is None:
                train = read_pairs(self.data, "train", self.source_field, self.target_field) or []
                pairs = train[: -self.held_out] if split == "train" else train[-self.held_out :]
        if pairs is None:
            raise ValueError(f"data {self.data!r} has no {split!r} split; add a {split}.jsonl file or set held_out.")
        return [Example(self.prefix + source, target) for source, target in pairs[:limit]]

    def metrics(self, predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
        """Corpus chrF (sacreBLEU's), 0 to 100."""
        import sacrebleu

        references = [[example.target for example in examples]]
        return {"chrf": float(sacrebleu.corpus_chrf(list(predictions), references).score)}

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """A byte-level BPE trained on the prompts and targets of the train split."""
        from kvar.tasks.tokenizers import byte_pair_tokenizer

        texts = [text for example in self.examples("train") for text in (example.prompt, example.target)]
        return byte_pair_tokenizer(texts, self.vocabulary)
