"""Batches of other trainers as rollouts: the layouts of TRL and verl, padded on either side, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kvar.rollouts import Policy, from_batch

PROMPTS = [[5, 6, 7], [5, 6, 7], [8]]
RESPONSES = [[3, 4, 1], [2, 1], [9, 9, 9, 9]]
LOG_PROBS = [[-0.5, -1.0, -0.25], [-2.0, -0.125], [-1.0, -1.5, -2.0, -2.5]]


def padded(rows: list[list], side: str = "right", width: int = 4, fill: float = 0) -> list[list]:
    return [
        [fill] * (width - len(r)) * (side == "left") + r + [fill] * (width - len(r)) * (side == "right") for r in rows
    ]


def ones(rows: list[list]) -> list[list[int]]:
    return [[1] * len(row) for row in rows]


def trl(prompt_side: str = "left", response_side: str = "right") -> dict:
    return {
        "prompt_ids": torch.tensor(padded(PROMPTS, prompt_side)),
        "prompt_mask": torch.tensor(padded(ones(PROMPTS), prompt_side)),
        "completion_ids": torch.tensor(padded(RESPONSES, response_side)),
        "completion_mask": torch.tensor(padded(ones(RESPONSES), response_side)),
        "advantages": torch.tensor([1.0, -1.0, 0.0]),
        "old_per_token_logps": torch.tensor(padded(LOG_PROBS, response_side)),
        "num_items_in_batch": torch.tensor(9),
    }


def verl() -> dict:
    batch = trl()
    prompts, responses = batch["prompt_ids"], batch["completion_ids"]
    teacher = torch.zeros(3, 8, 1)
    for row, response in enumerate(RESPONSES):
        for t in range(len(response)):
            teacher[row, 4 - 1 + t] = -0.1 * (10 * row + t + 1)  # column j is of the token in column j + 1
    return {
        "prompts": prompts,
        "responses": responses,
        "input_ids": torch.cat([prompts, responses], dim=1),
        "attention_mask": torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
        "position_ids": torch.zeros(3, 8, dtype=torch.long),
        "response_mask": batch["completion_mask"],
        "old_log_probs": batch["old_per_token_logps"] - 0.01,
        "rollout_log_probs": batch["old_per_token_logps"],
        "ref_log_prob": batch["old_per_token_logps"] - 0.02,
        "teacher_logprobs": teacher,
        "token_level_rewards": torch.tensor(padded([[0, 0, 1], [0, 2], [0, 0, 0, 3]])),
    }


def check(rollouts) -> None:
    for row, (prompt, response, log_probs) in enumerate(zip(PROMPTS, RESPONSES, LOG_PROBS, strict=True)):
        assert rollouts.prompt_ids[row][rollouts.prompt_mask[row]].tolist() == prompt
        assert rollouts.tokens[row][: len(response)].tolist() == response
        assert rollouts.mask[row].tolist() == [True] * len(response) + [False] * (4 - len(response))
        assert rollouts.log_probs[row][: len(response)].tolist() == log_probs
        assert not rollouts.log_probs[row][len(response) :].any()
    assert rollouts.finished.tolist() == [True, True, False]
    assert rollouts.prompt_index.tolist() == [0, 0, 1]


@pytest.mark.parametrize("sides", [("left", "right"), ("right", "right"), ("left", "left"), ("right", "left")])
@pytest.mark.parametrize("kind", [torch.as_tensor, np.asarray])
def test_padding_and_kind_do_not_matter(sides, kind) -> None:
    batch = {name: kind(value) for name, value in trl(*sides).items()}
    rollouts, held = from_batch(batch, eos_token_id=kind(1))
    check(rollouts)
    assert held["advantages"].tolist() == [1.0, -1.0, 0.0]
    assert torch.equal(held["old_log_probs"], rollouts.log_probs)
    assert int(held["num_items_in_batch"]) == 9


def test_verl_data_proto() -> None:
    uid = np.array(["b", "b", "a"], dtype=object)
    extra = {"uid": uid, "raw_prompt": np.array([[{"role": "user", "content": "?"}]] * 3, dtype=object)}
    rollouts, held = from_batch(SimpleNamespace(batch=verl(), non_tensor_batch=extra, meta_info={}), eos_token_id=1)
    check(rollouts)
    assert torch.allclose(held["teacher_log_probs"][0, :3], torch.tensor([-0.1, -0.2, -0.3]))
    assert torch.allclose(held["teacher_log_probs"][2], torch.tensor([-2.1, -2.2, -2.3, -2.4]))
    assert torch.allclose(held["ref_log_probs"][1, :2], torch.tensor([-2.02, -0.145]))
    assert held["token_level_rewards"].sum(dim=1).tolist() == [1, 2, 3]
    assert held["raw_prompt"] is extra["raw_prompt"] and "uid" not in held and "input_ids" not in held
    assert from_batch(verl(), eos_token_id=1, behaviour="old_log_probs")[0].log_probs[0, 0] == pytest.approx(-0.51)


def test_the_teachers_best_tokens() -> None:
    batch = verl()
    batch["teacher_logprobs"] = torch.log_softmax(torch.randn(3, 8, 2, generator=torch.manual_seed(0)), dim=-1)
    batch["teacher_ids"] = torch.arange(48).view(3, 8, 2)
    _, held = from_batch(batch, eos_token_id=1)
    assert held["teacher_top_ids"][1].tolist() == [[22, 23], [24, 25], [0, 0], [0, 0]]
    assert torch.equal(held["teacher_top_log_probs"][1, 1], batch["teacher_logprobs"][1, 4])
    assert "teacher_log_probs" not in held


@pytest.mark.parametrize("nested", [False, True])
def test_lists_of_several_lengths(nested: bool) -> None:
    batch = {"prompt_ids": PROMPTS, "completion_ids": RESPONSES, "logprobs": LOG_PROBS, "domain": ["a", "b", "c"]}
    if nested:
        for name in ("prompt_ids", "completion_ids", "logprobs"):
            batch[name] = torch.nested.nested_tensor([torch.tensor(row) for row in batch[name]], layout=torch.jagged)
    rollouts, held = from_batch(batch, eos_token_id=[1, 9_999])
    check(rollouts)
    assert held["domain"] == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["mask", "short mask", "labels"])
def test_sequences_with_masks_or_labels(kind: str) -> None:
    rows = [[*p, *r] for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    drawn = [[0] * len(p) + [1] * len(r) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    side = "right" if kind != "short mask" else "left"
    ids, mask = (torch.tensor(padded(x, side, 7)) for x in (rows, drawn))
    batch = {"input_ids": ids, "attention_mask": torch.tensor(padded(ones(rows), side, 7))}
    if kind == "labels":
        batch["labels"] = torch.where(mask.bool(), ids, -100)
    else:
        batch["response_mask"] = mask if kind == "mask" else mask[:, 3:]
    shifted = [[0] * (len(p) - 1) + list(x) for p, x in zip(PROMPTS, LOG_PROBS, strict=True)]
    batch["old_log_probs"] = torch.tensor(padded(shifted, side, 6), dtype=torch.float)
    check(from_batch(batch, eos_token_id=1)[0])


def test_given_tokens_before_the_first_drawn_one_belong_to_the_prompt() -> None:
    batch = trl()
    batch["tool_mask"] = torch.ones(3, 4)
    batch["tool_mask"][2, 0] = 0
    rollouts, held = from_batch(batch, eos_token_id=1)
    assert rollouts.prompt_ids[2][rollouts.prompt_mask[2]].tolist() == [8, 9]
    assert rollouts.tokens[2][rollouts.mask[2]].tolist() == [9, 9, 9]
    assert held["old_log_probs"][2].tolist() == [-1.5, -2.0, -2.5]


def test_a_row_that_the_trainer_leaves_out_has_no_tokens() -> None:
    batch = trl()
    batch["completion_mask"][2] = 0
    rollouts, _ = from_batch(batch, eos_token_id=1)
    assert rollouts.lengths.tolist() == [3, 2, 0] and rollouts.finished.tolist() == [True, True, False]
    assert rollouts.prompt_ids[2][rollouts.prompt_mask[2]].tolist() == [8]


def test_groups_and_ends_as_told() -> None:
    batch = {**trl(), "prompt_index": torch.tensor([7, 7, 3])}
    rollouts, _ = from_batch(batch, finished=[False, True, True])
    assert rollouts.prompt_index.tolist() == [7, 7, 3] and rollouts.finished.tolist() == [False, True, True]
    policy = Policy(size=10, ends=(1,))
    assert from_batch(batch, policy=policy)[0].policy is policy
    assert from_batch(batch, tokenizer=SimpleNamespace(eos_token_id=1))[0].finished.tolist() == [True, True, False]


def _without(*names: str) -> dict:
    return {name: value for name, value in trl().items() if name not in names}


def _changed(name: str, value) -> dict:
    return {**trl(), name: value}


def _verl(name: str, value) -> dict:
    return {**verl(), name: value}


BAD = {
    "nothing known": ({"pixel_values": torch.zeros(3, 2)}, "neither prompts and responses .* holds pixel_values"),
    "no mask": (_without("completion_mask"), "completion_ids is a tensor without its mask.* response_mask"),
    "no prompt mask": (_without("prompt_mask"), "prompt_ids is a tensor without its mask.* prompt_mask"),
    "no attention": ({"input_ids": torch.ones(3, 8)}, "input_ids without attention_mask"),
    "no response": ({k: verl()[k] for k in ("input_ids", "attention_mask")}, "which tokens are the response"),
    "two names": ({**trl(), "responses": trl()["completion_ids"]}, "'responses' and 'completion_ids', two names"),
    "rows": (_changed("prompt_ids", torch.ones(2, 4)), "prompt_ids has 2 rows, completion_ids 3"),
    "mask shape": (_changed("completion_mask", torch.ones(3, 5)), "completion_mask masks ids of shape .3, 4."),
    "mask values": (_changed("completion_mask", torch.full((3, 4), 2)), "completion_mask must hold only 0 and 1"),
    "joined ids": (_verl("input_ids", verl()["input_ids"] + 1), "input_ids holds token 6 at row 0, column 1"),
    "joined shape": (_verl("input_ids", torch.zeros(3, 9)), "input_ids must be prompts and responses side by side"),
    "padding drawn": (_verl("response_mask", torch.ones(3, 4)), "response_mask is 1 at row 0, column 7 .* is 0"),
    "tool": (_changed("tool_mask", torch.tensor([[1, 0, 1, 1]] * 3)), "2 of 3 responses .*row 0.* a tool's output"),
    "hole": (_changed("completion_mask", torch.tensor([[1, 0, 1, 0]] * 3)), "3 of 3 responses .* at padding"),
    "prompt hole": (_changed("prompt_mask", torch.tensor([[1, 0, 1, 1]] * 3)), "prompt of row 0 has zeros inside"),
    "labels as ids": (_changed("completion_ids", trl()["completion_ids"] - 100), "response token of id -99"),
    "fractions": (_changed("prompt_ids", torch.full((3, 4), 0.5)), "prompt_ids must be token ids"),
    "log-probs shape": (_changed("old_per_token_logps", torch.zeros(3, 5)), r"_logps must have shape \(3, 4\)"),
    "full width": (_verl("old_log_probs", torch.zeros(3, 8)), r"old_log_probs must .* or \(3, 7\), column j"),
    "log-probs rows": (_changed("old_per_token_logps", torch.zeros(2, 4)), "old_per_token_logps must have one row"),
    "probabilities": (_changed("old_per_token_logps", trl()["old_per_token_logps"].exp()), "0.6065 at row 0"),
    "not scored": (_changed("old_per_token_logps", torch.full((3, 4), torch.nan)), "is nan at row 0, position 0"),
    "after the end": (_changed("completion_ids", torch.tensor([[1, 4, 1, 0]] * 3)), "row 0 goes on after its end"),
    "groups": (_changed("uid", ["a", "b", "b"]), "uid is 'b' for row 2 and for a row with another prompt"),
    "group rows": (_changed("uid", ["a", "b"]), "uid names the prompt of 2 responses; there are 3"),
    "finished": (_changed("finished", torch.ones(2)), "finished must have shape .3,."),
    "top ids": (_verl("teacher_logprobs", torch.zeros(3, 8, 2)), "pass their ids as teacher_ids"),
    "teacher": (_verl("teacher_logprobs", torch.ones(3, 8, 1)), "teacher_log_probs is 1 at row 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_batches_are_refused(case: str) -> None:
    batch, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        from_batch(batch, eos_token_id=1)


def test_what_cannot_be_known_is_asked_for() -> None:
    with pytest.raises(ValueError, match="which responses ended is unknown: pass eos_token_id"):
        from_batch(trl())
    with pytest.raises(ValueError, match="'sampling' must hold|sampling must hold one log-prob"):
        from_batch(trl(), eos_token_id=1, behaviour="sampling")
    with pytest.raises(TypeError, match="a batch is a mapping"):
        from_batch([1, 2])
    with pytest.raises(ValueError, match="2 values in row 0, whose response has 3 tokens"):
        from_batch({"prompt_ids": PROMPTS, "completion_ids": RESPONSES, "logprobs": [[-1.0, -1.0]] * 3}, eos_token_id=1)
    with pytest.raises(ValueError, match="token 9 at row 2"):
        from_batch(trl(), policy=Policy(size=9, ends=(1,)))
