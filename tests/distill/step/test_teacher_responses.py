"""The teacher's responses: beam search, seeded samples, and that nothing is decoded twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kvar.distill.step.teacher_responses import TeacherResponses
from kvar.evaluation.beam import beam_search
from kvar.rollouts import sample, token_logits
from kvar.tasks import ArithmeticTask
from tests.cases import ragged_prompts, tiny_gpt2, tiny_t5
from tests.distill.objectives.table_models import written

TOKENIZER: Any = ArithmeticTask(1, 1).build_tokenizer()


class Tokens:
    """A tokenizer of 15 tokens for models of 17."""

    pad_token_id, eos_token_id = 0, 1

    def get_vocab(self) -> dict[str, int]:
        return {str(i): i for i in range(15)}


def log_prob(model: Any, prompt: Any, tokens: list[int]) -> float:
    row = written(tokens)
    row = type(row)(**{**vars(row), "prompt_ids": prompt[None], "prompt_mask": torch.ones_like(prompt[None]).bool()})
    log_p = token_logits(model, row)[0, :, :15].log_softmax(-1)
    return sum(float(log_p[t, token]) for t, token in enumerate(tokens))


@pytest.mark.parametrize("make", [tiny_t5, tiny_gpt2])
def test_beams_find_at_least_what_greedy_search_finds(make: Any) -> None:
    model = make()
    with torch.no_grad():
        model.get_output_embeddings().weight[15:] += 50.0  # padding of the vocabulary: never to be chosen
    ids, mask = ragged_prompts(vocab_size=15)
    greedy = sample(model, (ids, mask), Tokens(), max_new_tokens=5, temperature=0, vocabulary=15)
    one = beam_search(model, ids, mask, Tokens(), beams=1, max_new_tokens=5)
    assert one == [tokens[kept].tolist() for tokens, kept in zip(greedy.tokens, greedy.mask, strict=True)]
    four = beam_search(model, ids, mask, Tokens(), beams=4, max_new_tokens=5)
    for row in range(3):
        assert all(token < 15 for token in four[row])
        prompt = ids[row][mask[row]]
        if len(four[row]) == len(one[row]):  # the search compares means over the length
            assert log_prob(model, prompt, four[row]) >= log_prob(model, prompt, one[row]) - 1e-5


def responses(folder: Path | None, beams: int = 2, seed: int = 0, **changes: Any) -> TeacherResponses:
    settings = {"beams": beams, "max_new_tokens": 6, "seed": seed, "folder": folder, **changes}
    return TeacherResponses(tiny_t5(seed=1), Tokens(), **settings)


@pytest.mark.parametrize("beams", [0, 2])
def test_a_prompt_is_decoded_once_whatever_batch_it_comes_in(tmp_path: Path, beams: int) -> None:
    ids, mask = ragged_prompts(vocab_size=15)
    index = torch.tensor([7, 8, 9])
    first = responses(tmp_path, beams)
    found = first(ids, mask, index)
    assert first.decoded == 3
    assert torch.equal(found.prompt_index, index)
    again = first(ids[[2, 0]], mask[[2, 0]], index[[2, 0]])
    assert first.decoded == 3
    assert torch.equal(again.tokens[1], found.tokens[0, : again.tokens.shape[1]])

    later = responses(tmp_path, beams)  # a resumed run
    resumed = later(ids, mask, index)
    assert later.decoded == 0
    assert torch.equal(resumed.tokens, found.tokens) and torch.equal(resumed.finished, found.finished)
    fresh = responses(None, beams)(ids[[1]], mask[[1]], index[[1]])  # alone, and from nothing
    assert torch.equal(fresh.tokens[0], found.tokens[1, : fresh.tokens.shape[1]])


def test_a_line_that_was_cut_off_costs_only_itself(tmp_path: Path) -> None:
    ids, mask = ragged_prompts(vocab_size=15)
    index = torch.arange(3)
    found = responses(tmp_path)(ids, mask, index)
    path = tmp_path / "teacher-responses-0.jsonl"
    path.write_text(path.read_text()[:-4])
    later = responses(tmp_path)
    assert torch.equal(later(ids, mask, index).tokens, found.tokens)
    assert later.decoded == 1


def test_another_teacher_or_other_settings_read_nothing(tmp_path: Path) -> None:
    ids, mask = ragged_prompts(vocab_size=15)
    responses(tmp_path)(ids, mask, torch.arange(3))
    for other in (responses(tmp_path, beams=3), responses(tmp_path, beams=0), responses(tmp_path, max_new_tokens=4)):
        other(ids, mask, torch.arange(3))
        assert other.decoded == 3
    changed = TeacherResponses(tiny_t5(seed=2), Tokens(), beams=2, max_new_tokens=6, folder=tmp_path)
    changed(ids, mask, torch.arange(3))
    assert changed.decoded == 3


def test_processes_read_each_others_files(tmp_path: Path) -> None:
    ids, mask = ragged_prompts(vocab_size=15)
    for process in (0, 1):
        rows = [process]
        responses(tmp_path, process=process)(ids[rows], mask[rows], torch.tensor(rows))
    later = responses(tmp_path, process=0)
    later(ids, mask, torch.arange(3))
    assert later.decoded == 1


def test_samples_depend_on_the_seed() -> None:
    ids, mask = ragged_prompts(vocab_size=15)
    draws = [responses(None, beams=0, seed=s)(ids, mask, torch.arange(3)).tokens.tolist() for s in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
