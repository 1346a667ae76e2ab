"""The command line: one thin function a command.

kvar train CONFIG [--field value ...]      train a student, with probes; --help lists every field
kvar probe CONFIG|RUN [--field value ...]  measure gradient moments of trained models, without training
kvar choose-k RUN...                       the kernel that serves a step of M prompts x R rollouts best
kvar evaluate RUN|CONFIG [RUN]             metrics with intervals of one model, or of two and their difference
kvar study CONFIG --output DIR             a grid of tasks, students, methods and seeds
kvar demo --output DIR                     the arithmetic study and its report, in minutes
kvar report RUN ... --output FILE          one HTML file and figures from finished runs
kvar judge RUN_A RUN_B --judge MODEL       win rate of one run's texts over another's, judged by a language model
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

AGAIN = "nothing was written; give the same command again."
KEPT = {  # of an interrupted command that does not say so itself
    "train": "what the output folder held is kept; give the same command again to go on.",
    "study": "finished cells are kept; give the same command again to go on.",
    "demo": "finished cells are kept; give the same command again to go on.",
    "probe": "models that were measured are kept; give the same command again to go on.",
    "evaluate": "what was not said to be written is not; give the same command again.",
    "report": "parts of the new report may be missing; give the same command again.",
    "judge": "verdicts so far are kept; give the same command again to go on.",
}


def _train(arguments: argparse.Namespace, overrides: list[str]) -> int:
    if arguments.help:
        from kvar.study.settings.field_help import field_help
        from kvar.study.settings.run_settings import find_config, load_yaml, settings_from

        values = load_yaml(find_config(arguments.config)) if arguments.config else {}
        if "stages" in values or "methods" in values:
            raise ValueError(f"{arguments.config} is a study; see kvar study {arguments.config} --help.")
        if values:
            settings_from(values, arguments.config)  # an unknown field is an error here too
        print(field_help({**values, **dict(_pairs(overrides))}, arguments.config))
        return 0
    if arguments.config is None:
        raise ValueError("train needs a CONFIG: a YAML file, or the name of one that ships; see kvar train --help.")
    from kvar.study.run.run import train_run
    from kvar.study.settings.run_settings import read_settings

    train_run(*read_settings(arguments.config, overrides), overwrite=arguments.overwrite)
    return 0


def _probe(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from kvar.study.run.probing import plan_probe, probe_models

    plan = plan_probe(
        arguments.target, output=arguments.output, models=arguments.model, checkpoints=arguments.checkpoints
    )
    words = [word for name, value in _pairs(overrides) for word in (f"--{name}", value)]
    folder = probe_models(plan, words, overwrite=arguments.overwrite)
    print(f"records: {folder}; read them with kvar report {folder} --output DIR, or kvar choose-k {folder}")
    return 0


def _choose_k(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from kvar.records import load
    from kvar.report.choose_k import choose_k

    _none_left(overrides)
    step = arguments.step if arguments.step == "last" else int(arguments.step)
    options = {"step": step, "group": arguments.group, "reference": arguments.reference, "plot": arguments.plot}
    runs = [load(folder) for folder in arguments.run_folders]
    print(choose_k(runs, arguments.prompts, arguments.rollouts, **options))
    return 0


def _evaluate(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from kvar.study.evaluation.evaluate_runs import evaluate_command

    print(evaluate_command(arguments, [word for pair in _pairs(overrides) for word in (f"--{pair[0]}", pair[1])]))
    return 0


def _study(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from kvar.study.executors.ray_cluster import ray_executor
    from kvar.study.grid.cells import cells_of, starts_first
    from kvar.study.grid.run_grid import describe_plan, plan_study, read_study, run_study
    from kvar.study.settings.field_values import override

    if arguments.help:
        from kvar.study.settings.field_help import study_help

        study = read_study(arguments.config) if arguments.config else None
        print(study_help(arguments.usage(), study, arguments.config))
        return 0
    for name in ("config",) if arguments.list else ("config", "output"):
        if getattr(arguments, name) is None:
            missing = "a CONFIG" if name == "config" else "--output DIR"
            raise ValueError(f"study needs {missing}; see kvar study --help.")
    values = {name: override(name, word) for name, word in _pairs(overrides)}
    study = read_study(arguments.config)
    if arguments.list:
        print("\n".join(cell.name for cell in starts_first(cells_of(study, arguments.only))))
        return 0
    ray = ray_executor(arguments)
    options = {"overrides": values, "only": arguments.only, "overwrite": arguments.overwrite}
    if arguments.dry_run:
        print(describe_plan(plan_study(study, arguments.output, **options)))
        return 0
    return 1 if run_study(study, arguments.output, jobs=arguments.jobs, executor=ray, **options) else 0


def _report(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from kvar.report.by_method import report_study
    from kvar.report.by_run import report_runs
    from kvar.results.study_cells import is_grid

    _none_left(overrides)
    if len(arguments.runs) == 1 and is_grid(arguments.runs[0]) and not arguments.by_run:
        pairs = [word.partition("=") for word in arguments.teacher]
        for task, _, file in pairs:
            if not file:
                raise ValueError(f"--teacher {task!r} names no file; give TASK=FILE.")
        teachers = {task: file for task, _, file in pairs}
        named = {"method": arguments.method} if arguments.method else {}
        options = {"reference": arguments.reference, "batch": arguments.batch, "teachers": teachers, **named}
        options["earlier"] = arguments.earlier
        print(report_study(arguments.runs[0], arguments.output, **options))
        return 0
    if arguments.teacher or arguments.method or arguments.earlier:
        raise ValueError(
            "--method, --teacher and --earlier are for the folder of a study with several seeds; name that alone."
        )
    step = arguments.step if arguments.step == "last" else int(arguments.step)
    options = {"reference": arguments.reference, "batch": arguments.batch or 64, "step": step}
    print(report_runs(arguments.runs, arguments.output, **options))
    return 0


def _demo(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from pathlib import Path

    from kvar.report.by_run import report_runs
    from kvar.study.grid.demo import run_demo

    _none_left(overrides)
    if run_demo(arguments.output, overwrite=arguments.overwrite):
        return 1
    print(report_runs([arguments.output], arguments.output, batch=arguments.batch))
    print(f"report: {Path(arguments.output) / 'report.html'}")
    return 0


def _judge(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from kvar.study.evaluation.judge_runs import judge_command

    _none_left(overrides)
    print(judge_command(arguments))
    return 0


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    """``--field value`` and ``--field=value`` words as pairs."""
    pairs = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"{word!r} stands alone; overrides are written --field value.")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                raise ValueError(f"{word} has no value; overrides are written --field value.")
            value = rest.pop(0)
        pairs.append((name, value))
    return pairs


def _none_left(words: list[str]) -> None:
    if words:
        raise ValueError(f"unknown option {words[0]!r}; see kvar --help.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kvar", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="train a student as CONFIG says", allow_abbrev=False, add_help=False)
    train.add_argument("-h", "--help", action="store_true", help="every field, with its default")
    train.add_argument("config", nargs="?", help="a YAML file, or the name of a config that ships with kvar")
    train.add_argument("--overwrite", action="store_true", help="throw away a run that is in the output folder")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="decode and score a model, or compare two", allow_abbrev=False)
    evaluate.add_argument(
        "targets", nargs="+", metavar="TARGET", help="a run's folder, or a config with --model; two are compared"
    )
    evaluate.add_argument("--checkpoint", help="of a run: checkpoint-200, 200 or last; default its final model")
    evaluate.add_argument("--model", help="model folder or hub name to evaluate by the config")
    evaluate.add_argument("--split", help="validation or test; default the run's eval_split")
    evaluate.add_argument("--limit", type=int, help="the first this many examples, 0 for all; default eval_limit")
    evaluate.add_argument("--beams", type=int, help="1 is greedy; default the run's eval_beams")
    evaluate.add_argument("--batch", type=int, default=64, help="prompts decoded together, default 64")
    evaluate.add_argument("--kernels", help="returns reported beside K=1, comma-separated; default the run's")
    evaluate.add_argument("--no-teacher", action="store_true", help="texts only: no returns, no gaps")
    evaluate.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples, default 1000")
    evaluate.add_argument("--bootstrap-seed", type=int, default=0, help="seed of the resampling, default 0")
    evaluate.add_argument("--level", type=float, default=0.95, help="confidence level of the intervals, default 0.95")
    evaluate.add_argument("--output", help="JSON file of the result; default evaluation-SPLIT.json beside the run")
    evaluate.set_defaults(run=_evaluate)

    probe = commands.add_parser("probe", help="measure models without training them", allow_abbrev=False)
    probe.add_argument("target", metavar="CONFIG|RUN", help="a config, or a run's folder; --field value goes over it")
    probe.add_argument("--model", nargs="+", default=[], help="model folders or hub names to measure instead")
    probe.add_argument("--checkpoints", help="of a run: all, last, or steps such as 200,400; default its final model")
    probe.add_argument("--output", help="folder of the records; default RUN/probe, or the config's output_dir")
    probe.add_argument("--overwrite", action="store_true", help="measure anew what is in the output folder")
    probe.set_defaults(run=_probe)

    choose = commands.add_parser("choose-k", help="the best kernel for a step's size", allow_abbrev=False)
    choose.add_argument(
        "run_folders", metavar="RUN", nargs="+", help="a run with a probe, or kvar probe's records; several: its seeds"
    )
    choose.add_argument("--prompts", type=int, nargs="+", default=[16, 64, 256], help="M, default 16 64 256")
    choose.add_argument("--rollouts", type=int, nargs="+", default=[1], help="R of each prompt, default 1")
    choose.add_argument("--step", default="last", help="training step of the probe, or last")
    choose.add_argument("--group", default="all", help="parameter group, default all")
    choose.add_argument("--reference", help="estimator that stands for the true gradient; default the unbiased ones")
    choose.add_argument("--plot", metavar="FILE", help="draw efficiency and error against K as FILE.png and FILE.svg")
    choose.set_defaults(run=_choose_k)

    study = commands.add_parser(
        "study", help="train a grid of students, methods, tasks and seeds", allow_abbrev=False, add_help=False
    )
    study.add_argument("-h", "--help", action="store_true", help="this page, and what the named study holds")
    study.add_argument("config", nargs="?", help="a YAML file, or the name of a study that ships with kvar")
    study.add_argument("--output", help="the study's folder; a killed study goes on there")
    study.add_argument(
        "--only", nargs="*", default=[], help="cells to run: names, parts of names, or patterns such as '*/K=*/seed-0'"
    )
    study.add_argument("--jobs", type=int, default=1, help="cells run at a time, in processes of their own, default 1")
    study.add_argument("--ray", action="store_true", help="run cells on a Ray cluster instead; needs kvar[ray]")
    study.add_argument("--ray-address", metavar="HOST:PORT", help="its head; default RAY_ADDRESS, or this machine's")
    study.add_argument("--cell-cpus", type=float, help="with --ray: processors a cell takes, default 1")
    study.add_argument(
        "--cell-gpus", type=float, help="with --ray: GPUs a cell takes, up to 1; default 1 where any are"
    )
    study.add_argument("--cell-retries", type=int, help="with --ray: new attempts where a worker died, default 3")
    study.add_argument("--list", action="store_true", help="print the cells' names alone, starts first, and do nothing")
    study.add_argument("--dry-run", action="store_true", help="print the plan, check all but the weights, run nothing")
    study.add_argument("--overwrite", action="store_true", help="run the cells anew")
    study.set_defaults(run=_study, usage=study.format_help)

    report = commands.add_parser("report", help="report on runs that hold probes", allow_abbrev=False)
    report.add_argument("runs", nargs="+", help="run folders, or folders above them; or one study with several seeds")
    report.add_argument("--output", required=True, help="folder of report.html, figures and statistics.parquet")
    report.add_argument("--reference", help="estimator that stands for the true gradient; default the unbiased ones")
    report.add_argument("--batch", type=int, help="trajectories a training step, B; default 64, of a study its own")
    report.add_argument("--step", default="last", help="training step to show, or last")
    report.add_argument("--by-run", action="store_true", help="of a study with several seeds: run by run all the same")
    report.add_argument("--method", help="of such a study: what methods are compared with, default llmr")
    report.add_argument(
        "--teacher", action="append", default=[], metavar="TASK=FILE", help="of such a study: its teacher's evaluation"
    )
    report.add_argument(
        "--earlier", metavar="FOLDER", help="of such a study: an earlier report, for cells whose runs are not here"
    )
    report.set_defaults(run=_report)

    demo = commands.add_parser("demo", help="the arithmetic study and its report", allow_abbrev=False)
    demo.add_argument("--output", default="runs/demo", help="folder of runs, report.html and figures")
    demo.add_argument("--batch", type=int, default=64, help="trajectories a training step, B of theory.md (11')")
    demo.add_argument("--overwrite", action="store_true", help="run everything anew")
    demo.set_defaults(run=_demo)

    judge = commands.add_parser("judge", help="compare two runs' evaluation texts by a judge", allow_abbrev=False)
    judge.add_argument(
        "run_a", metavar="RUN_A", help="whose win rate is reported: a run's folder, or a file of kvar evaluate"
    )
    judge.add_argument("run_b", metavar="RUN_B", help="what to compare it with, likewise")
    judge.add_argument(
        "--judge",
        required=True,
        help="model folder, hub name, or address of an OpenAI-compatible server (its key: KVAR_JUDGE_API_KEY)",
    )
    judge.add_argument("--judge-model", help="which of the server's models; default its only one")
    judge.add_argument("--output", help="folder of verdicts and result; default RUN_A/judge/...; resumed where killed")
    judge.add_argument("--criterion", help="what better means, in a sentence; default: the better answer to the prompt")
    judge.add_argument("--limit", type=int, help="compare the first this many shared prompts; default all")
    judge.add_argument("--timeout", type=float, default=60.0, help="seconds a server may take per request, default 60")
    judge.add_argument("--retries", type=int, default=4, help="further attempts of a failed request, default 4")
    judge.add_argument("--concurrency", type=int, default=4, help="requests in flight at most, default 4")
    judge.add_argument("--max-tokens", type=int, default=16, help="longest reply of a server, default 16")
    judge.add_argument("--judge-request", default="{}", help="further request fields as JSON, such as '{\"seed\": 0}'")
    judge.set_defaults(run=_judge)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Entry point of ``kvar``; the exit status: 0 done, 1 failed on the way, 2 bad input, 130 interrupted (Ctrl-C)."""
    arguments, overrides = _parser().parse_known_args(words)
    try:
        return int(arguments.run(arguments, overrides))
    except ValueError as error:
        return _failed(error, 2)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return _failed(f"{error}. The disk is full: free some space, then give the same command again.", 1)
        return _failed(error, 1)
    except KeyboardInterrupt as error:
        return _failed(f"interrupted; {error if str(error) else KEPT.get(arguments.command, AGAIN)}", 130)


def _failed(what: object, status: int) -> int:
    rank = os.environ.get("RANK", "0")
    print(f"kvar{'' if rank == '0' else f' (process {rank})'}: {what}", file=sys.stderr)
    return status
