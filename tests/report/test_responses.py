"""Sampled responses of recorded probes: their tokens' texts and gaps, and how many of how many are shown."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kvar.report.page.responses import responses_data
from kvar.report.page.token_texts import token_texts
from kvar.results.places import Place, place_of, places_of
from tests.report.small_runs import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("r") / "small" / "K=2" / "seed-3", steps=(0, 5, 10), prompts=10)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {character: i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def test_first_and_last_step_are_taken_with_every_number_as_recorded(run):
    data = responses_data([run], [place_of(run)], each=4)
    assert [(name, step, of, known) for name, step, of, known, _ in data["shown"]] == [
        ("tiny / small / K=2 / seed 3", 0, 40, False),
        ("tiny / small / K=2 / seed 3", 10, 40, False),
    ]
    assert (data["runs"], data["recorded"]) == (1, 1)
    responses = data["shown"][1][4]
    assert [response["trajectory"] for response in responses] == [0, 10, 20, 30]
    for response in responses:
        rows = run.trajectories.query(f"step == 10 and trajectory == {response['trajectory']}")
        np.testing.assert_array_equal(response["gap"], rows["v"] - rows["q"])
        np.testing.assert_array_equal(response["log_prob"], rows["log_prob"])
        assert response["text"] == [f" {token}" for token in rows["token"]]
        assert response["length"] == len(rows) and response["prompt"] == rows["prompt"].iloc[0]


def test_many_runs_share_what_a_page_can_hold(run):
    runs, places = [run] * 9, [Place("t", "s", str(i), "0") for i in range(9)]
    few = responses_data(runs, places, most=20)
    assert [(step, len(found)) for _, step, _, _, found in few["shown"]] == [(10, 2)] * 9
    fewer = responses_data(runs, places, most=3)
    assert [name for name, *_ in fewer["shown"]] == ["t / s / 0 / seed 0", "t / s / 3 / seed 0", "t / s / 6 / seed 0"]
    assert (fewer["runs"], fewer["recorded"]) == (3, 9)


def test_texts_of_tokens_join_to_the_response_and_a_cut_character_is_its_last_tokens():
    tokenizer = byte_tokenizer()
    for text in ("Grüße <b>", "日本\n", "e"):
        ids = tokenizer(text)["input_ids"]
        texts = token_texts(tokenizer, ids)
        assert len(texts) == len(ids) and "".join(texts) == text
    assert token_texts(tokenizer, tokenizer("ü")["input_ids"]) == ["", "ü"]
    assert "".join(token_texts(tokenizer, tokenizer("aü")["input_ids"][:-1])) == "a\ufffd"


def test_the_tokenizer_beside_a_run_spells_its_tokens(run, tmp_path):
    own = write_run(tmp_path / "s" / "m", prompts=3)
    byte_tokenizer().save_pretrained(own.path / "checkpoint-9")
    _, _, _, known, responses = responses_data([own], [place_of(own)])["shown"][0]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    assert known
    ids = own.trajectories.query("trajectory == 0")["token"].astype(int).tolist()
    assert responses[0]["text"] == [alphabet[i] for i in ids]


def test_a_run_is_placed_by_its_folders(run, tmp_path):
    assert place_of(run) == Place("tiny", "small", "K=2", "3")
    study = write_run(tmp_path / "study" / "sums" / "large" / "kl" / "seed-1", prompts=3)
    (tmp_path / "study" / "study.json").write_text("{}")
    assert place_of(study) == Place("sums", "large", "kl", "1")
    twins = [write_run(tmp_path / name / "small" / "kl", prompts=3, seed=5) for name in ("a", "b")]
    assert [place.student for place in places_of(twins)] == [str(tmp_path / name / "small") for name in ("a", "b")]
    assert places_of([*twins[:1], run])[0] == Place("tiny", "small", "kl", "5")
