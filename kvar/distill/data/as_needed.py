"""Training rows that are tokenised where a run sees them, for runs of fewer steps than the data has rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import Dataset

from kvar.distill.data.order import ShuffledExamples

__all__ = ["RowsAsNeeded", "rows_seen"]


def rows_seen(args: Any, examples: int) -> list[int] | None:
    """The rows that a run's steps see, in the order of the data; None for all, or where the order needs all lengths.

    Args:
        args: the trainer's settings; ``max_steps`` bounds the rows.
        examples: rows of the data.
    """
    batches = args.max_steps * args.gradient_accumulation_steps + 1  # accelerate reads one ahead
    seen = batches * args.train_batch_size * args.world_size
    if args.max_steps <= 0 or seen >= examples:
        return None
    if args.train_sampling_strategy == "sequential":
        return list(range(seen))
    if args.train_sampling_strategy != "random":
        return None
    seed = args.seed if args.data_seed is None else args.data_seed
    return sorted(list(ShuffledExamples(examples, seed))[:seen])


class RowsAsNeeded(Dataset[dict[str, Any]]):
    """Rows of :func:`kvar.distill.data.dataset.build_dataset`, of which some are tokenised now and others when asked.

    A sampler that draws from its length gives the order of the whole data, and a row is the same whenever it is made.

    Args:
        examples: the data.
        build: some examples -> their rows.
        now: numbers of the rows to be tokenised at once, as those of :func:`rows_seen`.

    Raises:
        ValueError: as ``build``, for the first such row.
    """

    def __init__(self, examples: Sequence[Any], build: Callable[[Sequence[Any]], Any], now: Sequence[int]) -> None:
        self.examples, self.build = examples, build
        self._rows: dict[int, dict[str, Any]] = {}
        try:
            made = build([examples[i] for i in now])
        except ValueError:
            for i in now:
                self[i]  # tells which row it is
            raise
        self._rows = {i: {**made[k], "index": i} for k, i in enumerate(now)}

    @property
    def prompt_lengths(self) -> dict[int, int]:
        """Row -> tokens of its prompt, of those that are tokenised."""
        return {i: row["prompt_length"] for i, row in self._rows.items()}

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        i = int(index)
        if i not in self._rows:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a single target that is cut
                try:
                    self._rows[i] = {**self.build([self.examples[i]])[0], "index": i}
                except ValueError as error:
                    raise ValueError(f"row {i} of the data: {error}") from None
        return self._rows[i]
