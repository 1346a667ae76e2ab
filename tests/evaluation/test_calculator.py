"""The calculator during decoding: results are forced whatever the model, the tokenizer or the number of beams."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from kvar.distill import build_model, decode, evaluate
from kvar.evaluation.calculator_logits import Calculator
from kvar.rollouts import unchecked
from kvar.tasks import ArithmeticTask, TranslationTask, calculate
from kvar.tasks.tokenizers import byte_pair_tokenizer

SIZES = {"d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 16, "num_layers": 1, "num_decoder_layers": 1}
MODELS = {
    "t5": {"model_type": "t5", **SIZES},
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128, "bos_token_id": 1},
}
TEXTS = ["He sold 48/2 = <<48/2=24>>24 clips. #### 24", "12 - 5 = <<12-5=7>>7 and 3.5*2 [[3.5*2=7]]7"] * 20


def unigram_tokenizer() -> Any:
    """Pieces with a mark for the blank before them, as T5's and Llama's tokenizers have, and no "<"."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<pad>", "</s>", "<unk>", "▁", *"0123456789.+-*/=[]#HeslodcipntaA()", "24", "▁24", "48", "▁=", "▁[", "33"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(len(piece) < 2)) for piece in pieces], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


TOKENIZERS = {
    "digits": (lambda: ArithmeticTask(1, 1).build_tokenizer(), ("<<", ">>")),
    "byte pairs": (lambda: byte_pair_tokenizer(TEXTS, 320), ("<<", ">>")),
    "unigram": (unigram_tokenizer, ("[[", "]]")),
}


def written(tokenizer: Any, marks: tuple[str, str], text: str) -> str:
    """What the processor makes a model write behind ``text`` that likes token 3 best throughout."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    processor = Calculator(tokenizer, start=1, marks=marks)
    for _ in range(12):
        scores = torch.zeros(1, len(tokenizer))
        chosen = processor(torch.tensor([[0, *ids]]), scores)
        if torch.equal(chosen, scores):
            break
        assert (chosen[0] > -torch.inf).sum() == 1  # one token, and only that, is left
        ids.append(int(chosen.argmax()))
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize(
    ("inside", "result"), [("48/2=", "24"), ("7-12=", "-5"), ("100/3=", "33.333333"), ("12*12=", "144"), ("1-1=", "0")]
)
def test_the_result_is_written_whatever_the_tokenizer(kind: str, inside: str, result: str) -> None:
    make, marks = TOKENIZERS[kind]
    tokenizer = make()
    start = tokenizer.decode(tokenizer(f"24 {marks[0]}{inside}", add_special_tokens=False)["input_ids"])
    if kind == "digits" and "." in result:
        pytest.skip("this tokenizer has no decimal point")
    assert written(tokenizer, marks, f"24 {marks[0]}{inside}") == f"{start}{result}{marks[1]}"


def test_what_cannot_be_calculated_is_left_to_the_model() -> None:
    tokenizer = ArithmeticTask(1, 1).build_tokenizer()
    for text in ("<<4/0=", "<<4+=", "<<4+4", "4+4=", "<<4+4=8>>", "<<4+4=9", "<<=", " pens <<pens="):
        ids = tokenizer(text)["input_ids"]
        assert written(tokenizer, ("<<", ">>"), text) == tokenizer.decode(ids)


def test_a_result_begun_is_finished() -> None:
    tokenizer = ArithmeticTask(1, 1).build_tokenizer()
    assert written(tokenizer, ("<<", ">>"), "<<40+44=8") == "<<40+44=84>>"
    assert written(tokenizer, ("<<", ">>"), "<<40+44=84") == "<<40+44=84>>"


def test_a_tokenizer_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot write the calculator's marks << and >> .* Set calculator_marks"):
        Calculator(unigram_tokenizer(), start=1)


def biased(kind: str, tokenizer: Any, text: str) -> Any:
    """A model that mostly writes ``text`` round and round: each token's likeliest successor is set."""
    model = build_model(MODELS[kind], tokenizer)
    ids = tokenizer(text)["input_ids"]
    after = dict(itertools.pairwise(ids))

    class Chain(type(model)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            seen = kwargs.get("decoder_input_ids", kwargs.get("input_ids"))
            for row, token in enumerate(seen[:, -1].tolist()):
                out.logits[row, -1, after.get(token, ids[0])] += 50
            return out

    model.__class__ = Chain
    return model


@pytest.fixture(autouse=True)
def _untried() -> Iterator[None]:
    """The chain changes the last logits alone, which no language model does: it is not to be tried."""
    with unchecked():
        yield


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("beams", [1, 3])
def test_decoding_writes_right_results(kind: str, beams: int) -> None:
    """Left alone the model writes <<3*8=1>> again and again; with the calculator every result is right."""
    tokenizer = ArithmeticTask(1, 1).build_tokenizer()
    model = biased(kind, tokenizer, " Monday<<3*8=1>>")
    options: dict[str, Any] = {"max_new_tokens": 24, "num_beams": beams, "batch": 2}
    prompts = ["Mia has 3 pens.", "Tom has 11 cups. On", "Ada"]
    plain = decode(model, prompts, tokenizer, **options)
    helped = decode(model, prompts, tokenizer, calculator=("<<", ">>"), **options)
    assert any("<<3*8=1>>" in text for text in plain)
    marks = [mark for text in helped for mark in re.findall(r"<<([^<>=]+)=([^<>]*)>>", text)]
    assert ("3*8", "24") in marks
    assert all(calculate(expression) in (result, None) for expression, result in marks)
    assert helped == [decode(model, [p], tokenizer, calculator=("<<", ">>"), **options)[0] for p in prompts]


def test_evaluate_takes_the_tasks_marks() -> None:
    task = ArithmeticTask(1, 1)
    tokenizer = task.build_tokenizer()
    model = biased("t5", tokenizer, " Monday<<3*8=1>>")
    result = evaluate(model, task, task.examples("test", 2), tokenizer, max_new_tokens=24, calculator=True)
    assert all("<<3*8=24>>" in text for text in result.texts)
    pairs = TranslationTask("unused", "a", "b")
    with pytest.raises(ValueError, match="task 'translation' has no calculation marks; set calculator to false"):
        evaluate(model, pairs, task.examples("test", 2), tokenizer, max_new_tokens=4, calculator=True)
