"""``kvar measure``."""

from __future__ import annotations

import argparse

from kvar.commands.values import whole

HELP = "measure a batch of responses that another trainer or engine dumped"
KEPT = "nothing was written; run the same command again."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("file", metavar="FILE", help="a batch as .safetensors or .parquet; docs: from-elsewhere")
    parser.add_argument("--student", required=True, help="model folder or hub name of the policy that is measured")
    parser.add_argument("--teacher", help="model folder or hub name; default what the file holds of a teacher")
    parser.add_argument("--tokenizer", help="folder or hub name; default the student's")
    parser.add_argument("--estimators", help="names, separated by commas; default those that the teacher allows")
    parser.add_argument("--stale", action="store_true", help="the responses are an earlier student's")
    parser.add_argument("--behaviour", help="the field with the log-probabilities of the policy that drew them")
    parser.add_argument("--eos-token-id", type=whole(0), nargs="+", help="ends of a response; default the tokenizer's")
    parser.add_argument("--micro-batch", type=whole(1), help="responses in memory at a time; default all")
    parser.add_argument("--device", help="default the accelerator, else the CPU")
    parser.add_argument("--output", help="folder to save the measurement in, for kvar report, choose-k and advise")
    parser.add_argument("--overwrite", action="store_true", help="discard what the output folder holds")


def run(arguments: argparse.Namespace) -> int:
    """Print the measurement's table, and save it where asked."""
    import kvar
    from kvar.front.batch_file import read_batch
    from kvar.front.tokenizer import settled_tokenizer
    from kvar.rollouts import from_batch

    batch = read_batch(arguments.file)
    tokenizer = settled_tokenizer(arguments.tokenizer, arguments.student, arguments.teacher or arguments.student)
    measurement = kvar.measure(
        arguments.student,
        arguments.teacher,
        tokenizer=tokenizer,
        rollouts=from_batch(
            batch, tokenizer=tokenizer, eos_token_id=arguments.eos_token_id, behaviour=arguments.behaviour
        ),
        **({} if arguments.estimators is None else {"estimators": arguments.estimators}),
        stale=arguments.stale,
        micro_batch=arguments.micro_batch,
        device=arguments.device,
    )
    print(measurement)
    if arguments.output:
        print(f"saved: {measurement.save(arguments.output, arguments.overwrite)}")
    return 0
