"""Encoding of text in ordinary tokens only: the text of a special token is spelt out."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Sequence
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["content_ids", "control_tokens", "spelt", "tokens_of", "unknown_tokens"]

_SECRET = secrets.token_hex(8)
"""Part of the names of special tokens while a text is spelt out, which no text contains."""

BREAK = f"{_SECRET};"
"""Inserted into a special token's text so that it is not read as one; removed before the text is encoded."""

_KNOWN: WeakKeyDictionary[Any, tuple[Any, Any]] = WeakKeyDictionary()
"""Tokenizer -> (key of its renamed copy, the copy)."""


def content_ids(
    texts: Sequence[str], tokenizer: Any, *, ends: Collection[int] = (), target: bool = False, what: str = "text"
) -> tuple[list[list[int]], list[int]]:
    """The tokens of texts, without those that a tokenizer puts around a text.

    Args:
        texts: N texts.
        tokenizer: fast or slow.
        ends: tokens that end a response; they are control tokens even if the tokenizer does not call them special.
        target: encode as the tokenizer encodes targets (Marian's have a separate vocabulary).
        what: name of a text in errors.

    Returns:
        N lists of ids without any control token, and the rows whose text contains the text of one.

    Raises:
        ValueError: a text contains the text of a special token and the tokenizer cannot write it otherwise.
    """
    ids = tokens_of(tokenizer, texts, target, add_special_tokens=False)
    control = control_tokens(tokenizer, ends)
    unknown = unknown_tokens(tokenizer)
    odd = [
        row
        for row, tokens in enumerate(ids)
        if any(token not in unknown or control[token] in texts[row] for token in control.keys() & set(tokens))
    ]
    changed = []
    for row in odd:
        plain = spelt(texts[row], tokenizer, control, target=target, what=f"{what} {row}")
        if plain != ids[row]:
            changed.append(row)
        ids[row] = plain
    return ids, changed


def control_tokens(tokenizer: Any, ends: Collection[int] = ()) -> dict[int, str]:
    """Tokens with a meaning besides their text: the tokenizer's special ones, and ends among its added tokens."""
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    control = {i: str(token) for i, token in added.items() if getattr(token, "special", True) or i in ends}
    names = getattr(tokenizer, "all_special_tokens", ())
    return {**control, **dict(zip(getattr(tokenizer, "all_special_ids", ()), map(str, names), strict=False))}


def tokens_of(tokenizer: Any, texts: Sequence[str], target: bool = False, **options: Any) -> list[list[int]]:
    """The tokenizer's ids of texts, encoded as prompts or targets, neither cut nor padded."""
    if target and hasattr(tokenizer, "_switch_to_target_mode"):
        encoded = tokenizer(text_target=list(texts), **options)
    else:
        encoded = tokenizer(list(texts), **options)
    return [[int(token) for token in ids] for ids in encoded["input_ids"]]


def spelt(
    text: str,
    tokenizer: Any,
    control: dict[int, str],
    *,
    written: Collection[str] = (),
    target: bool = False,
    what: str = "text",
) -> list[int]:
    """Tokens of a text in which control tokens are ordinary text, except those in ``written``.

    The tokenizer's own switch (``split_special_tokens``) is not enough: it leaves added tokens that are not special,
    and vocabularies that hold a special token's text as a piece (T5's) still find it. So a fast tokenizer's twin is
    used, in which control tokens have names that no text can hold.

    Args:
        text: a text; :data:`BREAK` inside a token's text makes it ordinary.
        tokenizer: fast or slow.
        control: ids and texts of control tokens.
        written: those that stay tokens where the text has them.
        target: encode as a target, where the tokenizer is a slow one.
        what: what an error calls the text.

    Raises:
        ValueError: the tokenizer has no other way to write the text of a control token.
    """
    names = {token: name for token, name in control.items() if name}
    kept = {name: token for token, name in names.items() if name in written}
    pattern = "|".join(re.escape(name) for name in sorted(kept, key=len, reverse=True)) or "(?!)"
    expected = len(re.findall(pattern, text))
    twin = _twin(tokenizer, names)
    if twin is not None:
        renamed = re.sub(pattern, lambda match: _hidden(kept[match[0]]), text).replace(BREAK, "")
        ids = list(twin.encode(renamed, add_special_tokens=False).ids)
    elif expected == 0:
        options = {"add_special_tokens": False, "split_special_tokens": True}
        ids = tokens_of(tokenizer, [text.replace(BREAK, "")], target, **options)[0]
    else:
        raise ValueError(_refusal(text, names, what))
    unknown = unknown_tokens(tokenizer)
    if sum(token in names and token not in unknown for token in ids) > expected:
        raise ValueError(_refusal(text, names, what))
    return ids


def _refusal(text: str, names: dict[int, str], what: str) -> str:
    bare = text.replace(BREAK, "")
    held = next((name for name in names.values() if name in bare), "a special token")
    return (
        f"{what} holds the text {held!r}, and this tokenizer can only write it as the special token of that name. Take "
        "it out of the text, or use a fast tokenizer."
    )


def unknown_tokens(tokenizer: Any) -> set[int]:
    """The tokens that stand for characters outside the vocabulary, without end-of-sequence."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model = getattr(backend, "model", None)
    name = getattr(model, "unk_token", None)
    ids: set[Any] = {
        getattr(tokenizer, "unk_token_id", None),
        getattr(model, "unk_id", None),
        backend.token_to_id(name) if backend is not None and isinstance(name, str) else None,
    }
    return ids - {None, getattr(tokenizer, "eos_token_id", None)}


def _hidden(token: int) -> str:
    return f"{_SECRET}-{token};"


def _twin(tokenizer: Any, control: dict[int, str]) -> Any:
    """A copy of a fast tokenizer whose control tokens are named :func:`_hidden`; None if it cannot be made."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not hasattr(backend, "to_str"):
        return None
    key = (len(tokenizer), frozenset(control.items()))
    known = _KNOWN.get(tokenizer)
    if known is None or known[0] != key:
        known = _KNOWN[tokenizer] = (key, _renamed(tokenizer, control))
    return known[1]


def _renamed(tokenizer: Any, control: dict[int, str]) -> Any:
    from tokenizers import Tokenizer

    try:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
    except Exception:  # a component written in Python cannot be serialised
        return None
    content |= {"truncation": None, "padding": None, "post_processor": None}
    names = {name: _hidden(token) for token, name in control.items()}
    for entry in content["added_tokens"]:
        entry["content"] = names.get(entry["content"], entry["content"])
    model = content["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): token for piece, token in model["vocab"].items()}
    else:  # Unigram: pieces with their scores
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        pairs = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"]]
        model["merges"] = [pair for pair in pairs if names.keys().isdisjoint((*pair, "".join(pair)))]
    twin = Tokenizer.from_str(json.dumps(content))
    probe = "A b, 1."
    same = (
        twin.encode(probe, add_special_tokens=False).ids == tokens_of(tokenizer, [probe], add_special_tokens=False)[0]
    )
    return twin if same and all(twin.token_to_id(_hidden(token)) == token for token in control) else None
