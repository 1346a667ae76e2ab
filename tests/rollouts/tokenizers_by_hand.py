"""Tokenizers of one token a character, with the special tokens of well-known families around a text."""

from __future__ import annotations

from typing import Any

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n'"
    " + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
THINKING = (  # Qwen3's: an answer's thoughts are told from it, and an empty thought is written where thinking is off
    "{% for m in messages %}{% set c = m.content %}{% set thought = '' %}"
    "{% if m.role == 'assistant' and '</think>' in c %}"
    "{% set thought = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if m.role == 'assistant' %}"
    "{{ '<|im_start|>assistant\n<think>\n' + thought + '\n</think>\n\n' + c + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' + c + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)


def characters(
    special: list[str], *, single: str = "$A", plain: tuple[str, ...] = (), template: str | None = None, **named: str
) -> Any:
    """A byte-level tokenizer without merges: every ASCII character is a token, a space is "Ġ", a line end "Ċ".

    Args:
        special: special tokens, ids from 0.
        single: what is put around a text, as ``TemplateProcessing`` takes it.
        plain: tokens added behind the characters, not special.
        template: chat template.
        named: eos_token, bos_token and so on.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {t: i for i, t in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    made.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(t, vocab[t]) for t in special if t in single.split()]
    )
    extra = [token for token in special if token not in named.values()]
    return PreTrainedTokenizerFast(
        tokenizer_object=made, additional_special_tokens=extra, chat_template=template, **named
    )


def llama_like() -> Any:
    return characters(
        ["<unk>", "<s>", "</s>", "<pad>"], single="<s> $A", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def opt_like() -> Any:
    return characters(["<pad>", "</s>"], single="</s> $A", bos_token="</s>", eos_token="</s>", pad_token="<pad>")


def bart_like() -> Any:
    return characters(
        ["<s>", "<pad>", "</s>"], single="<s> $A </s>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def gemma_like() -> Any:
    return characters(
        ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
        single="<bos> $A", bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", template=GEMMA,
    )  # fmt: skip


def phi_like() -> Any:
    return characters(
        ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"],
        eos_token="<|endoftext|>", pad_token="<|endoftext|>", template=PHI,
    )  # fmt: skip


def qwen_like(template: str = CHATML) -> Any:
    return characters(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        plain=("<think>", "</think>"), eos_token="<|im_end|>", pad_token="<|endoftext|>", template=template,
    )  # fmt: skip


def thinking() -> Any:
    return qwen_like(THINKING)


def pieces_like_t5() -> Any:
    """T5's own class: a Unigram model that has "</s>" among its pieces."""
    from transformers import T5Tokenizer

    letters = sorted(set("abcd</s>unkp▁"))
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -2.0), *((c, -1.0 - i / 10) for i, c in enumerate(letters))]
    return T5Tokenizer(vocab=pieces, extra_ids=2)


def nllb_like(**changes: Any) -> Any:
    from transformers import NllbTokenizer

    letters = {t: i for i, t in enumerate(["<s>", "<pad>", "</s>", "<unk>", *sorted("abcd▁")])}
    return NllbTokenizer(vocab=letters, merges=[], src_lang="eng_Latn", tgt_lang="fra_Latn", **changes)


def mbart_like() -> Any:
    from transformers import MBartTokenizer

    pieces = [(t, 0.0) for t in ("<s>", "<pad>", "</s>", "<unk>")] + [(c, -1.0) for c in sorted("abcd▁")]
    return MBartTokenizer(vocab=pieces, src_lang="en_XX", tgt_lang="ro_RO")
