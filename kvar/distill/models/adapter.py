"""Load a folder written by peft's ``save_pretrained``: the base model with the adapter merged in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["ADAPTER", "adapter_base", "is_adapter", "merged"]

ADAPTER = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def is_adapter(name: str) -> bool:
    """Whether ``name`` is a folder that holds an adapter and no whole model."""
    folder = Path(name)
    whole = any(folder.glob("model*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
    return bool(name) and (folder / ADAPTER).is_file() and not whole


def adapter_base(name: str) -> str:
    """The folder (absolute, or relative to the adapter's) or hub name of the model that an adapter was made for.

    Raises:
        ValueError: the adapter's config is not readable, or names no base.
    """
    path = Path(name) / ADAPTER
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        base = config.get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not readable as an adapter's config ({error}).") from error
    if not base:
        raise ValueError(
            f"{path} names no base model: set its field base_model_name_or_path to the folder or hub name of the model "
            "that the adapter was made for."
        )
    beside = Path(name) / str(base)
    return str(beside) if not Path(str(base)).is_dir() and beside.is_dir() else str(base)


def merged(name: str, load: Callable[[str], Any]) -> Any:
    """The base model of an adapter with the adapter's weights added to its own, as a plain model.

    Args:
        name: the adapter's folder.
        load: loads the base by its folder or hub name, in float32.

    Raises:
        ValueError: no base, one that cannot be loaded, weights that are missing, do not fit or are not safetensors, or
            an adapter that is a learned prompt and cannot be merged.
    """
    try:
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise ValueError(f"{name!r} is an adapter's folder, which needs peft: pip install 'kvar[lora]'.") from error

    base = adapter_base(name)
    if not (Path(name) / WEIGHTS).is_file():
        raise ValueError(f"adapter {name!r} has no {WEIGHTS}; save it as safetensors (peft's save_pretrained does).")
    config = PeftConfig.from_pretrained(name)
    if config.is_prompt_learning:
        raise ValueError(
            f"adapter {name!r} is a learned prompt ({config.peft_type.value}), which cannot be merged into its base; "
            "only adapters of weights, such as LoRA, can."
        )
    try:
        model = load(base)
    except ValueError as error:
        raise ValueError(f"the base of adapter {name!r} cannot be loaded: {error}") from error
    try:
        whole = PeftModel.from_pretrained(model, name).merge_and_unload(safe_merge=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"adapter {name!r} does not fit its base {base!r}: {reason}") from error
    return whole.requires_grad_(True)  # peft froze the base
