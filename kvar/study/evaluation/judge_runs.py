"""`kvar judge`: the evaluation texts of two runs, compared by a language model."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.records.lock import lock_folder
from kvar.records.place import check_folder_place

if TYPE_CHECKING:
    from kvar.evaluation.judge import Comparison, Judge, Pair

__all__ = ["judge_runs", "load_judge", "read_texts", "shared_pairs"]

FILE = "evaluation.json"


def judge_runs(
    run_a: str | Path,
    run_b: str | Path,
    judge: str | Judge,
    *,
    output: str | Path | None = None,
    criterion: str | None = None,
    limit: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Comparison:
    """Win rate of one run's evaluation texts over another's, on the prompts that both have.

    Verdicts are saved one by one in ``verdicts.jsonl`` and the result in ``result.json`` of the output folder; the same
    call resumes a killed comparison.

    Args:
        run_a: a run's folder, with its evaluation.json (the first examples only), or a file of ``kvar evaluate`` (all).
        run_b: the other run, likewise.
        judge: a model folder, a hub name, an http(s) address, or a judge.
        output: folder of verdicts and result; default ``RUN_A/judge/`` and a name made of the other run's and judge's.
        criterion: what "better" means, in a sentence or two; default: the better answer to the prompt.
        limit: compare the first this many shared prompts.
        options: further arguments of the judge, see :func:`load_judge`.

    Raises:
        ValueError: runs without texts or without a shared prompt, an output folder of another comparison, or a judge
            that cannot be asked.
    """
    from kvar.evaluation.judge import CRITERION, compare

    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1; got {limit}.")
    if output is not None:
        check_folder_place(output, "output")
    pairs, left_out = shared_pairs(Path(run_a), Path(run_b))
    asked = load_judge(judge, **(options or {})) if isinstance(judge, str) else judge
    folder = Path(output) if output is not None else _default_output(Path(run_a), Path(run_b), asked.name)
    folder.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(folder)
    result = compare(
        asked, pairs[:limit], folder / "verdicts.jsonl", criterion=criterion or CRITERION, progress=_progress()
    )
    del lock
    values = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(result).items()}
    content = {"run_a": str(run_a), "run_b": str(run_b), "judge": asked.name, "prompts_left_out": left_out, **values}
    (folder / "result.json").write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    return result


def _default_output(run_a: Path, run_b: Path, judge: str) -> Path:
    """``judge/B-by-JUDGE`` in the first run's folder, B with its folder's name where it is a file."""
    other = f"{run_b.resolve().parent.name}-{run_b.stem}" if run_b.is_file() else run_b.resolve().name
    name = re.sub(r"[^\w.-]+", "-", f"{other}-by-{judge}").strip("-")[-120:]
    return (run_a.parent if run_a.is_file() else run_a) / "judge" / name


def load_judge(
    name: str,
    *,
    model: str | None = None,
    timeout: float = 60.0,
    retries: int = 4,
    concurrency: int = 4,
    max_tokens: int = 16,
    batch: int = 8,
    request: Mapping[str, Any] | None = None,
) -> Judge:
    """The judge called ``name``.

    Args:
        name: an http(s) address of an OpenAI-compatible server, or a model folder or hub name.
        model: which of a server's models.
        timeout: seconds a request to a server may take.
        retries: further attempts of a request.
        concurrency: most requests at a time.
        max_tokens: longest reply of a server.
        batch: questions per forward pass of a local model.
        request: further fields of a server's requests.

    Raises:
        ValueError: no such model, or a server that cannot be reached.
    """
    from kvar.evaluation.judge import LocalJudge, ServerJudge

    if re.match(r"https?://", name):
        return ServerJudge(
            name,
            model,
            timeout=timeout,
            retries=retries,
            concurrency=concurrency,
            max_tokens=max_tokens,
            options=request,
        )
    import torch

    from kvar.distill import load_model, load_tokenizer

    loaded = load_model(name).to("cuda" if torch.cuda.is_available() else "cpu")
    return LocalJudge(loaded, load_tokenizer(name), name, batch=batch)


def shared_pairs(run_a: Path, run_b: Path) -> tuple[list[Pair], int]:
    """Pairs of texts on the same prompt, in the first run's order, and the number of texts without a partner.

    Repeated prompts are matched one by one.

    Raises:
        ValueError: no prompt is shared.
    """
    from kvar.evaluation.judge import Pair

    first, second = read_texts(run_a), read_texts(run_b)
    partners = defaultdict(list)
    for prompt, text in reversed(second):
        partners[prompt].append(text)
    pairs = [Pair(prompt, text, partners[prompt].pop()) for prompt, text in first if partners.get(prompt)]
    if not pairs:
        raise ValueError(f"{run_a} and {run_b} share no prompt: evaluate both on the same split with the same prefix.")
    return pairs, len(first) + len(second) - 2 * len(pairs)


def read_texts(run: Path) -> list[tuple[str, str]]:
    """(prompt, text) of every example in a run's evaluation.json, or in a file of ``kvar evaluate``.

    Raises:
        ValueError: no such file, or a file without texts.
    """
    path = run if run.is_file() else run / FILE
    if not path.is_file():
        raise ValueError(f"{path} is missing: finish the run with eval_limit above 0, or name a file of kvar evaluate.")
    try:
        samples = json.loads(path.read_text(encoding="utf-8"))["samples"]
        texts = [(str(row["prompt"]), str(row["text"])) for row in samples]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds no samples with prompt and text ({error!r}); evaluate the run again."
        ) from error
    if not texts:
        raise ValueError(f"{path} holds no samples: evaluate the run with eval_limit above 0.")
    return texts


def _progress() -> Any:
    """The update function of a progress bar; None where stderr is not a terminal."""
    if not sys.stderr.isatty():
        return None
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    bar = tqdm(unit="answer")

    def show(done: int, wanted: int) -> None:
        bar.total = wanted
        bar.update(done - bar.n)
        if done == wanted:
            bar.close()

    return show
