"""The real server of ``transformers serve``, which returns texts alone: what can be had of it, and what is refused."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kvar.distill import build_model
from kvar.rollouts import OpenAISampler, encode_prompts, policy_of, sample_by

pytest.importorskip("fastapi", reason="transformers serve needs it")
pytest.importorskip("uvicorn", reason="transformers serve needs it")
TEXTS = ["ab", "cab", "b"]
LETTERS = "abcdefghij"


def by_letter() -> Any:
    """A tokenizer with a token a letter: every text of letters encodes to the tokens that it was made of."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *LETTERS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Any, Any]]:
    """Address and model name of a server of a small student; the student and its tokenizer."""
    from transformers.cli.serve import Serve

    tokenizer = by_letter()
    size = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 32}
    student = build_model(size, tokenizer, seed=0).eval()
    student.generation_config.suppress_tokens = [0, 2]  # neither padding nor the unknown token is ever written
    folder: Path = tmp_path_factory.mktemp("student")
    student.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Serve(
        force_model=str(folder), device="cpu", dtype="float32", host="127.0.0.1", port=port, log_level="error",
        non_blocking=True,
    )  # fmt: skip
    for _ in range(600):  # the server starts in a thread of its own
        with socket.socket() as here:
            if here.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}", str(folder), student, tokenizer
    server.kill_server()


def ask(served: tuple, n: int = 2, **options: Any) -> Any:
    url, name, student, tokenizer = served
    policy = policy_of(student, tokenizer)
    prompts = encode_prompts(TEXTS, tokenizer, student, policy=policy)
    sampler = OpenAISampler(url, name, retries=0, concurrency=1, **options)
    return sample_by(
        sampler, student, prompts, rollouts_per_prompt=n, max_new_tokens=10, seed=1, policy=policy
    )[0]  # fmt: skip


def test_it_takes_no_token_ids(served) -> None:
    with pytest.raises(ValueError, match=r"HTTP 4\d\d .*Unexpected fields"):
        ask(served)


def test_its_default_is_greedy_which_is_noticed(served) -> None:
    with pytest.raises(ValueError, match="their tokens are more probable than such samples"):
        ask(served, n=12, tokenizer=served[3])


def test_texts_that_encode_to_themselves_are_samples_without_log_probs(served) -> None:
    end = served[3].eos_token_id
    sampling = {"do_sample": True, "eos_token_id": end, "pad_token_id": 0, "suppress_tokens": [0, 2], "top_k": 0}
    rollouts = ask(served, tokenizer=served[3], options={"generation_config": json.dumps(sampling)})
    assert len(rollouts) == 6 and not rollouts.log_probs.any()
    last = rollouts.tokens.gather(1, rollouts.lengths[:, None] - 1)[:, 0]
    assert torch.equal(last == end, rollouts.finished) and bool((rollouts.lengths[~rollouts.finished] == 10).all())


def test_texts_that_do_not_are_refused(served) -> None:
    class Other:
        """A tokenizer that reads two letters as one."""

        def __getattr__(self, name: str) -> Any:
            return getattr(served[3], name)

        def __call__(self, text: str, **options: Any) -> Any:
            ids = list(served[3](text, **options)["input_ids"])
            return {"input_ids": ids[::2] if options else ids}

    with pytest.raises(ValueError, match="a text that does not encode back to its tokens: .* the engine counted"):
        ask(served, tokenizer=Other())


def test_prompts_that_are_other_tokens_as_text_are_refused(served) -> None:
    tokenizer = served[3]

    class Other:
        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __call__(self, text: str, **options: Any) -> Any:
            return {"input_ids": [3, *tokenizer(text)["input_ids"]]}

    with pytest.raises(ValueError, match="as text does not encode to its token ids"):
        ask(served, tokenizer=Other())
