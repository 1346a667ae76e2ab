"""Training speed: a step's profile, kvar beside TRL and beside an accumulating loop, and what the probes cost.

python -m benchmarks.training            measure, write training.json and the tables of TRAINING.md
python -m benchmarks.training --only batch   measure that part alone, and keep the others of training.json
python -m benchmarks.training --render   write the tables again from training.json
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

DATA = Path(__file__).with_name("training.json")
PARTS = ("machine", "causal", "seq2seq", "probes", "batch", "profile")


def measure(rounds: int, only: Sequence[str] = ()) -> dict[str, object]:
    """Everything measured, or ``only`` some parts, in one process and on one thread."""
    import torch
    import transformers

    from benchmarks import training_against, training_batch, training_probe, training_profile, training_setup

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    logging.getLogger("trl").setLevel(logging.ERROR)
    parts: dict[str, Callable[[], object]] = {
        "machine": training_setup.machine,
        "causal": lambda: training_against.causal(rounds),
        "seq2seq": lambda: training_against.seq2seq(rounds),
        "probes": lambda: training_probe.run(rounds),
        "batch": lambda: training_batch.run(rounds),
        "profile": lambda: training_profile.run(rounds),
    }
    return {name: part() for name, part in parts.items() if name in (only or parts)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="write the tables from training.json, measure nothing")
    parser.add_argument("--rounds", type=int, default=4, help="interleaved rounds")
    parser.add_argument("--only", nargs="+", default=[], choices=PARTS, help="parts to measure; others are kept")
    arguments = parser.parse_args()
    if not arguments.render:
        kept = json.loads(DATA.read_text()) if arguments.only else {}
        DATA.write_text(json.dumps(kept | measure(arguments.rounds, arguments.only), indent=1) + "\n")
    from benchmarks.training_tables import write

    write(json.loads(DATA.read_text()), DATA.with_name("TRAINING.md"))


if __name__ == "__main__":
    main()
