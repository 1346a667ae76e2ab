"""Pretrained models and tokenizers by one name: a shipped model, a folder, a hub name, a GGUF file or ``smollm2``."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kvar.distill.models.adapter import adapter_base, is_adapter, merged
from kvar.distill.models.bars import without_bars
from kvar.distill.models.gguf import dense_weights, gguf_source
from kvar.distill.models.shipped import SHIPPED, resolve

__all__ = ["has_tokenizer", "load_model", "load_tokenizer"]

DTYPES = ("float32", "bfloat16")


def load_model(name: str | Path, dtype: str = "float32") -> Any:
    """A pretrained model, seq2seq or causal as its config says; safetensors or GGUF only, no remote code.

    Args:
        name: ``arithmetic``, the teacher that ships with kvar, or one of its students, such as ``arithmetic-90k``; a
            model folder, a hub name, the path of a ``.gguf`` file, or ``smollm2``; or a peft adapter's folder, whose
            adapter is merged into its base in float32.
        dtype: precision of the weights, float32 or bfloat16, however they were saved. Train in float32.

    Raises:
        ValueError: no loadable model of that name, or another dtype.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    if dtype not in DTYPES:
        raise ValueError(
            f"dtype {dtype!r} is not offered; choose float32 or bfloat16 (T5 and others give NaN in float16)."
        )
    name = str(name)
    if is_adapter(name):
        return merged(name, load_model).to(getattr(torch, dtype))
    place, options = _source(name)
    try:
        config = AutoConfig.from_pretrained(place, **options)
        family = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        with without_bars(Path(place).is_dir()):
            if not options:
                return family.from_pretrained(place, dtype=getattr(torch, dtype), use_safetensors=True)
            return family.from_pretrained(place, dtype=getattr(torch, dtype), **options, **dense_weights())
    except (OSError, ValueError) as error:
        raise ValueError(_message("model", name, error)) from error


def load_tokenizer(name: str | Path) -> Any:
    """The tokenizer of a model named as in :func:`load_model`; the pad token falls back to end-of-sequence.

    An adapter's folder without a tokenizer has that of its base.

    Raises:
        ValueError: no tokenizer, or one that cannot be loaded.
    """
    from transformers import AutoTokenizer

    name = str(name)
    if is_adapter(name) and not (Path(name) / "tokenizer_config.json").is_file():
        return load_tokenizer(adapter_base(name))
    place, options = _source(name)
    if Path(place).is_dir() and not options and not has_tokenizer(Path(place)):
        raise ValueError(f"tokenizer of {name!r}: that folder holds none. Save it there (tokenizer.save_pretrained).")
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
    except (OSError, ValueError) as error:
        raise ValueError(_message("tokenizer of", name, error)) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def has_tokenizer(folder: Path) -> bool:
    """Whether a model folder holds a tokenizer; without one transformers would make an empty one."""
    return any(any(folder.glob(pattern)) for pattern in ("tokenizer*", "vocab*", "merges.txt", "*.model", "*.spm"))


def _source(name: str) -> tuple[str, dict[str, Any]]:
    """Name and options for ``from_pretrained``; a missing path that cannot be a hub name is refused at once."""
    name = str(resolve(name))
    gguf = gguf_source(name)
    like_a_path = name.count("/") > 1 or name[:1] in ("", ".", "/", "~", "\\")
    if gguf is None and like_a_path and not (name and Path(name).is_dir()):
        raise ValueError(
            f"model {name!r} is no folder. Give a folder that save_pretrained wrote, a hub name (owner/name), a .gguf "
            f"file, smollm2, or what ships with kvar: {', '.join(SHIPPED)}."
        )
    near = get_close_matches(name, SHIPPED, n=1, cutoff=0.8)
    if gguf is None and near and not Path(name).is_dir() and "/" not in name:
        raise ValueError(
            f"model {name!r} is no folder and does not ship with kvar; did you mean {near[0]!r}? These ship: "
            f"{', '.join(SHIPPED)}. A hub model is named owner/name."
        )
    return (name, {}) if gguf is None else (gguf[0], {"gguf_file": gguf[1]})


def _message(what: str, name: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    if Path(name).is_dir():
        return f"{what} {name!r} cannot be loaded from that folder: {reason}"
    if _offline(error):
        return (
            f"{what} {name!r} is neither a folder nor in the local cache, and the hub cannot be reached. Check the "
            "path; or download it where there is a network (hf download) and set HF_HOME to that cache."
        )
    return f"{what} {name!r} cannot be loaded: it is no folder, and as a hub name: {reason}"


def _offline(error: BaseException | None) -> bool:
    """Whether some error in the chain says that the hub cannot be reached."""
    seen = ("couldn't connect", "offline mode", "OfflineModeIsEnabled", "LocalEntryNotFound", "ConnectError")
    while error is not None:
        text = f"{type(error).__name__}: {error}"
        if any(word.lower() in text.lower() for word in seen):
            return True
        error = error.__cause__ or error.__context__
    return False
