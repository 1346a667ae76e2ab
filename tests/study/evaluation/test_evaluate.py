"""``kvar evaluate``: on a run, a checkpoint, a model with a config, and on two runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import kvar
from kvar.commands.main import main
from kvar.study.run.run import train_run
from kvar.study.settings.reading import settings_from

SIZES = {"model_type": "t5", "d_kv": 8, "num_heads": 2, "d_ff": 16, "num_layers": 1, "num_decoder_layers": 1}


def values(teacher: Path, output: Path, **changes: Any) -> dict[str, Any]:
    return {
        "task": "arithmetic", "min_problem_steps": 1, "max_problem_steps": 1, "teacher": str(teacher),
        "student_config": {**SIZES, "d_model": 8}, "train_limit": 64, "max_new_tokens": 16, "eval_limit": 6,
        "objective": "ketchup", "kernel": "K=2", "report_to": "none", "use_cpu": True, "disable_tqdm": True,
        "per_device_train_batch_size": 8, "max_steps": 4, "save_steps": 2, "logging_steps": 2,
        "output_dir": str(output),
        **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, and two runs, a and b."""
    from kvar.distill import build_model
    from kvar.tasks import ArithmeticTask

    folder = tmp_path_factory.mktemp("runs")
    tokenizer = ArithmeticTask(1, 1).build_tokenizer()
    build_model({**SIZES, "d_model": 16}, tokenizer, seed=3).save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder / "teacher")
    train_run(*settings_from(values(folder / "teacher", folder / "a"), "test"))
    train_run(*settings_from(values(folder / "teacher", folder / "b", seed=1, objective="kl"), "test"))
    return folder


def content(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_run_is_evaluated_and_recorded(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(runs / "a"), "--split", "test", "--limit", "5", "--kernels", "K=4, immediate"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    found = content(runs / "a" / "evaluation-test.json")
    names = {"exact_answer", "length", "finished", "return K=1", "return K=4", "return immediate", "total_gap"}
    assert names <= set(found["metrics"]) and all(name in printed for name in names)
    assert found["examples"] == 5 == len(found["samples"]) and found["step"] == 4 and found["resamples"] == 1000
    for name, interval in found["intervals"].items():
        assert interval["low"] <= found["metrics"][name] + 1e-9 and interval["n"] == 5
        assert found["metrics"][name] <= interval["high"] + 1e-9
    metrics = kvar.load(runs / "a").metrics
    mine = metrics[metrics["split"] == "evaluate test"]
    assert set(mine["step"]) == {4} and mine["name"].is_unique
    assert mine.set_index("name")["value"]["total_gap low"] == found["intervals"]["total_gap"]["low"]
    assert main(words) == 0  # again: the rows are replaced, not repeated
    assert len(kvar.load(runs / "a").metrics) == len(metrics)


def test_returns_are_the_teachers_on_the_decoded_tokens(runs: Path) -> None:
    """Recomputed from one unpadded forward pass of the teacher an example; the paper's return and the total gap."""
    from kvar.distill import load_model, load_tokenizer

    assert main(["evaluate", str(runs / "a"), "--limit", "4", "--split", "test", "--output", str(runs / "x.json")]) == 0
    teacher, student = load_model(str(runs / "teacher")).eval(), load_model(str(runs / "a" / "model")).eval()
    tokenizer = load_tokenizer(str(runs / "teacher"))
    for sample in content(runs / "x.json")["samples"]:
        ids = tokenizer(sample["prompt"], return_tensors="pt")["input_ids"]
        tokens = [student.config.decoder_start_token_id]
        with torch.no_grad():
            for _ in range(16):  # greedy, the slow way
                tokens.append(
                    int(student(input_ids=ids, decoder_input_ids=torch.tensor([tokens])).logits[0, -1].argmax())
                )
                if tokens[-1] == tokenizer.eos_token_id:
                    break
            logits = teacher(input_ids=ids, decoder_input_ids=torch.tensor([tokens[:-1]])).logits[0]
        q = logits - logits.mean(dim=-1, keepdim=True)
        gaps = q.max(dim=-1).values - q.gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
        assert sample["length"] == len(tokens) - 1 and sample["finished"] == (tokens[-1] == tokenizer.eos_token_id)
        assert sample["total_gap"] == pytest.approx(float(gaps.sum()), abs=1e-4)
        assert sample["return K=1"] == pytest.approx(float(q[0].max() - gaps.sum()), abs=1e-4)


def test_a_checkpoint_and_a_model_by_a_config(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(runs / "a"), "--checkpoint", "2", "--no-teacher", "--limit", "3"]) == 0
    found = content(runs / "a" / "evaluation-validation-checkpoint-2.json")
    assert found["step"] == 2 and found["model"].endswith("checkpoint-2") and found["teacher"] is None
    assert "total_gap" not in found["metrics"] and "length" in found["metrics"]
    config = tmp_path / "arith.yaml"
    config.write_text(
        "task: arithmetic\nmin_problem_steps: 1\nmax_problem_steps: 1\nmax_new_tokens: 16\nuse_cpu: true\n"
    )
    model, output = str(runs / "a" / "model"), tmp_path / "out.json"
    assert (
        main(["evaluate", str(config), "--model", model, "--limit", "3", "--beams", "2", "--output", str(output)]) == 0
    )
    assert content(output)["beams"] == 2 and content(output)["split"] == "validation"
    study = [
        "evaluate",
        "demo",
        "--model",
        model,
        "--no-teacher",
        "--min_problem_steps",
        "1",
        "--max_problem_steps",
        "1",
    ]
    assert main([*study, "--limit", "3", "--output", str(output)]) == 0  # the study's task, split and length limit
    assert content(output)["split"] == "test" and content(output)["max_new_tokens"] == 60
    capsys.readouterr()


def test_two_runs_are_compared_on_the_same_examples(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(runs / "a"), str(runs / "b"), "--split", "test", "--kernels", "K=2"]) == 0
    printed = capsys.readouterr().out
    assert "second - first" in printed and "paired by example, n = 6" in printed
    path = next((runs / "b").glob("evaluation-test-against-*.json"))
    gap = content(path)["second_less_first"]["total_gap"]
    first, second = (content(runs / name / "evaluation-test.json")["metrics"]["total_gap"] for name in "ab")
    assert gap["value"] == pytest.approx(second - first) and gap["low"] <= gap["value"] <= gap["high"]


def test_runs_on_other_examples_are_not_compared(runs: Path) -> None:
    from dataclasses import replace

    from kvar.study.evaluation.evaluate_runs import compare_results, evaluate_target
    from kvar.study.evaluation.result import Options
    from kvar.study.evaluation.target import find_target

    options = Options(teacher=False, resamples=10)
    first = evaluate_target(find_target(str(runs / "a"), {"eval_limit": 3}, teacher=False), options)
    other = evaluate_target(find_target(str(runs / "b"), {"eval_limit": 4}, teacher=False), options)
    with pytest.raises(
        ValueError, match="have different examples .3 and 4 examples.: a paired comparison needs the same"
    ):
        compare_results(first, other)
    with pytest.raises(ValueError, match="example 2 differs"):
        compare_results(first, replace(first, examples=[*first.examples[:2], other.examples[3]]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{runs}"], "is a folder but not a run (no config.json)"),
        (["nowhere"], "config 'nowhere' is neither a file nor one of"),
        (["multi30k"], "is a study; name the folder of one of its runs"),
        (["arithmetic-teacher"], "names no trained student; say which model to evaluate: --model"),
        (["arithmetic-teacher", "--checkpoint", "5"], "--checkpoint 5 needs a run"),
        (["{runs}/a", "--checkpoint", "3"], "has no checkpoint '3'; it holds checkpoint-2, checkpoint-4"),
        (["{runs}/a", "--split", "dev"], "split 'dev' is unknown"),
        (["{runs}/a", "--resamples", "0"], "resamples must be at least 1"),
        (["{runs}/a", "--beams", "0"], "eval_beams must be at least 1; got 0"),
        (["{runs}/a", "--kernels", "K=x"], "the word 'K=x' is unknown"),
        (["{runs}/a", "--eval_spit", "x"], "did you mean 'eval_split'"),
        (["{runs}/a", "{runs}/b", "{runs}/a"], "takes one target, or two to compare; got 3"),
        (["{runs}/a", "--model", "{runs}/none"], "is no folder"),
    ],
)
def test_bad_input_is_one_line(runs: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *(word.replace("{runs}", str(runs)) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_a_run_that_another_process_writes_is_still_evaluated(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = (
        "import sys; from kvar.records import RunWriter, load\n"
        "with RunWriter(sys.argv[1], load(sys.argv[1]).config): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(runs / "b")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    try:
        assert main(["evaluate", str(runs / "b"), "--limit", "2", "--no-teacher"]) == 0
    finally:
        other.communicate("")
    assert "not recorded in the run's metrics" in capsys.readouterr().out


def test_defect_2_training_never_opens_the_test_split(tmp_path: Path) -> None:
    """A run that validates while training and scores its validation split at the end; its test file is poison."""
    rows = [json.dumps({"q": f"What is {i} and {i}?", "a": f"It is {2 * i}."}) for i in range(24)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    (tmp_path / "test.jsonl").write_text("{poison")
    run = {
        "task": "text", "data": str(tmp_path), "source_field": "q", "target_field": "a", "held_out": 6,
        "vocabulary": 270, "student_config": {**SIZES, "d_model": 8}, "objective": "sft", "max_steps": 2,
        "eval_strategy": "steps", "eval_steps": 1, "per_device_train_batch_size": 4, "max_new_tokens": 8,
        "report_to": "none", "use_cpu": True, "disable_tqdm": True, "output_dir": str(tmp_path / "run"),
    }  # fmt: skip
    assert "chrf" in train_run(*settings_from(run, "test"))
    assert content(tmp_path / "run" / "evaluation.json")["examples"] == 6
    with pytest.raises(ValueError, match="test.jsonl line 1 is not JSON"):
        train_run(*settings_from({**run, "eval_split": "test", "output_dir": str(tmp_path / "other")}, "test"))


def test_a_lora_checkpoint_is_the_runs_start_with_its_adapters(runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    run = values(runs / "teacher", tmp_path / "run", lora_rank=2, learning_rate=0.1, objective="kl", eval_limit=6)
    train_run(*settings_from(run, "test"))
    for words in ([], ["--checkpoint", "2"], ["--checkpoint", "4"]):
        assert main(["evaluate", str(tmp_path / "run"), *words]) == 0
    last, merged, earlier = (
        content(tmp_path / "run" / f"evaluation-validation{end}.json")["metrics"]
        for end in ("-checkpoint-4", "", "-checkpoint-2")
    )
    assert last["total_gap"] == pytest.approx(merged["total_gap"], rel=1e-4)
    assert earlier["total_gap"] != pytest.approx(merged["total_gap"], rel=1e-4)
