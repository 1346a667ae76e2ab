"""Training speed: a step's profile, kvar beside TRL and beside an accumulating loop, and what the probes cost.

python -m benchmarks.training            measure, write training.json and the tables of TRAINING.md
python -m benchmarks.training --render   write the tables again from training.json
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

DATA = Path(__file__).with_name("training.json")


def measure(rounds: int) -> dict[str, object]:
    """Everything measured, in one process and on one thread."""
    import torch
    import transformers

    from benchmarks import training_against, training_probe, training_profile, training_setup

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    logging.getLogger("trl").setLevel(logging.ERROR)
    return {
        "machine": training_setup.machine(),
        "causal": training_against.causal(rounds),
        "seq2seq": training_against.seq2seq(rounds),
        "probes": training_probe.run(rounds),
        "profile": training_profile.run(rounds),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="write the tables from training.json, measure nothing")
    parser.add_argument("--rounds", type=int, default=4, help="interleaved rounds")
    arguments = parser.parse_args()
    if not arguments.render:
        DATA.write_text(json.dumps(measure(arguments.rounds), indent=1) + "\n")
    from benchmarks.training_tables import write

    write(json.loads(DATA.read_text()), DATA.with_name("TRAINING.md"))


if __name__ == "__main__":
    main()
