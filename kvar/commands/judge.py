"""``kvar judge``."""

from __future__ import annotations

import argparse
import json

HELP = "compare two runs' evaluation texts by a judge"
KEPT = "verdicts so far are kept; run the same command again to resume."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "run_a", metavar="RUN_A", help="whose win rate is reported: a run's folder, or a file of kvar evaluate"
    )
    parser.add_argument("run_b", metavar="RUN_B", help="the run to compare it with, likewise")
    parser.add_argument(
        "--judge",
        required=True,
        help="model folder, hub name, or address of an OpenAI-compatible server (its key: KVAR_JUDGE_API_KEY)",
    )
    parser.add_argument("--judge-model", help="which of the server's models; default its only one")
    parser.add_argument("--output", help="folder of verdicts and result; default RUN_A/judge/...; resumed where killed")
    parser.add_argument("--criterion", help="what better means, in a sentence; default: the better answer")
    parser.add_argument("--limit", type=int, help="compare the first this many shared prompts; default all")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds a server may take per request, default 60")
    parser.add_argument("--retries", type=int, default=4, help="further attempts of a failed request, default 4")
    parser.add_argument("--concurrency", type=int, default=4, help="most requests at a time, default 4")
    parser.add_argument("--max-tokens", type=int, default=16, help="longest reply of a server, default 16")
    parser.add_argument("--judge-request", default="{}", help="further request fields as JSON, such as '{\"seed\": 0}'")


def run(arguments: argparse.Namespace) -> int:
    """Print the win rate."""
    from kvar.study.evaluation.judge_runs import judge_runs

    try:
        request = json.loads(arguments.judge_request)
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise ValueError(f"judge-request must be a JSON object; got {arguments.judge_request!r}.")
    options = {name: getattr(arguments, name) for name in ("timeout", "retries", "concurrency", "max_tokens")}
    options |= {"model": arguments.judge_model, "request": request}
    where = {name: getattr(arguments, name) for name in ("output", "criterion", "limit")}
    print(judge_runs(arguments.run_a, arguments.run_b, arguments.judge, options=options, **where))
    return 0
