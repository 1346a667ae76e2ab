"""`kvar judge`: two runs' texts, a judge in a folder or behind an address, and a real model server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch

from kvar.commands.main import main
from kvar.study.evaluation.judge_runs import judge_runs, read_texts, shared_pairs
from kvar.tasks.tokenizers import byte_pair_tokenizer
from tests.cases import tiny_llama

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"


def run_folder(path: Path, texts: dict[str, str]) -> Path:
    path.mkdir()
    samples = [{"prompt": prompt, "target": "", "text": text} for prompt, text in texts.items()]
    (path / "evaluation.json").write_text(json.dumps({"split": "test", "metrics": {}, "samples": samples}))
    return path


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    first = {f"prompt {i}": f"good {i}" for i in range(5)}
    second = {f"prompt {i}": f"bad {i}" for i in range(1, 7)} | {"prompt 4": "good 4"}
    return run_folder(tmp_path / "one", first), run_folder(tmp_path / "two", second)


@pytest.fixture(scope="module")
def always_a(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model that says "A" and ends, whatever it reads: attention and feed-forward do nothing."""
    tokenizer = byte_pair_tokenizer(["You compare two responses. A B tie"] * 3, 270)
    tokenizer.chat_template = CHAT
    model = tiny_llama(vocab_size=len(tokenizer), max_position_embeddings=4096, tie_word_embeddings=False)
    space, letter = tokenizer("A", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.model.norm.weight.fill_(1.0)
        model.model.embed_tokens.weight[:] = torch.eye(16)[0]  # any token is followed by a space,
        model.model.embed_tokens.weight[space] = torch.eye(16)[1]  # a space by the letter,
        model.model.embed_tokens.weight[letter] = torch.eye(16)[2]  # and the letter by the end
        for state, token in enumerate((space, letter, tokenizer.eos_token_id)):
            model.lm_head.weight[token, state] = 5.0
    model.generation_config.update(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.config.eos_token_id = tokenizer.eos_token_id
    folder = tmp_path_factory.mktemp("always-a")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_runs_are_matched_by_prompt(runs: tuple[Path, Path]) -> None:
    pairs, left_out = shared_pairs(*runs)
    assert [p.prompt for p in pairs] == ["prompt 1", "prompt 2", "prompt 3", "prompt 4"]
    assert (pairs[0].first, pairs[0].second, left_out) == ("good 1", "bad 1", 3)


def test_a_local_judge_from_the_command_line(
    runs: tuple[Path, Path], always_a: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["judge", str(runs[0]), str(runs[1]), "--judge", str(always_a), "--output", str(tmp_path / "out")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "win rate 0.500" in printed and "n = 4 prompts" in printed and "3 inconsistent" in printed
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["win_rate"], result["identical"], result["prompts_left_out"]) == (0.5, 1, 3)
    before = (tmp_path / "out" / "verdicts.jsonl").read_bytes()
    assert main(words) == 0  # nothing is asked twice
    assert (tmp_path / "out" / "verdicts.jsonl").read_bytes() == before


def test_the_default_output_lies_in_the_first_run(runs: tuple[Path, Path], always_a: Path) -> None:
    assert judge_runs(*runs, str(always_a), limit=2).n == 2
    (folder,) = (runs[0] / "judge").iterdir()
    assert folder.name.startswith("two-by-") and (folder / "result.json").exists()


def test_files_of_kvar_evaluate_are_compared_too(runs: tuple[Path, Path], always_a: Path) -> None:
    files = [run / "evaluation-test.json" for run in runs]
    for run, file in zip(runs, files, strict=True):
        (run / "evaluation.json").rename(file)
    assert judge_runs(*files, str(always_a)).n == 4
    (folder,) = (runs[0] / "judge").iterdir()
    assert folder.name.startswith("two-evaluation-test-by-")


def test_bad_input_is_one_line(runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    other = run_folder(tmp_path / "other", {"another prompt": "x"})
    for words, message in (
        ([runs[0], empty], "evaluation.json is missing"),
        ([runs[0], other], "share no prompt"),
        ([*runs, "--limit", "0"], "limit must be at least 1"),
        ([*runs, "--judge-request", "[1]"], "judge-request must be a JSON object"),
    ):
        assert main(["judge", *map(str, words), "--judge", "http://127.0.0.1:9", "--judge-model", "m"]) == 2
        assert message in capsys.readouterr().err
    (empty / "evaluation.json").write_text('{"samples": [{"prompt": "x"}]}')
    with pytest.raises(ValueError, match="holds no samples with prompt and text"):
        read_texts(empty)
    assert main(["judge", *map(str, runs), "--judge", str(empty)]) == 2
    assert "cannot be loaded" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_model_server(runs: tuple[Path, Path], always_a: Path, tmp_path: Path) -> None:
    """``transformers serve`` with the tiny model: its replies are read, and its constant "A" is all ties."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = "from transformers.cli.transformers import main; main()"
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", command, "serve", str(always_a), *options], env=environment, stdout=log, stderr=log
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", server, tmp_path / "log")
            made: Any = {"model": str(always_a), "timeout": 60.0}
            result = judge_runs(*runs, f"http://127.0.0.1:{port}", output=tmp_path / "out", options=made)
        finally:
            server.terminate()
            server.wait(timeout=30)
    assert (result.n, result.inconsistent, result.ties, result.win_rate) == (4, 3, 1, 0.5)
    assert (result.invalid, result.shown_first) == (0, 1.0)
    rows = (tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()[1:]
    assert [json.loads(row)["text"].strip() for row in rows] == ["A"] * 6


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(600):
        if server.poll() is not None:
            pytest.fail(f"the server ended: {log.read_text()[-2000:]}")
        try:
            opener.open(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"no server within three minutes: {log.read_text()[-2000:]}")
