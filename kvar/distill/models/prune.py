"""Students made of some of the teacher's layers: every n-th, or those listed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["layer_stacks", "parse_layers", "prune_layers"]

COUNTS = {
    "encoder": ("encoder_layers", "num_encoder_layers", "num_layers", "num_hidden_layers"),
    "decoder": ("decoder_layers", "num_decoder_layers"),
    "layers": ("num_hidden_layers",),
}
"""Config fields that hold a stack's number of layers, by stack; the first that exists is used."""


def prune_layers(
    teacher: Any,
    *,
    every: int | Mapping[str, int] | None = None,
    keep: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
) -> Any:
    """A copy of the teacher with only some of its layers.

    Layers are renumbered, per-layer lists of the config (sliding windows and the like) follow, and the student is
    saved and loaded as any model of its family. What only the first layer holds (T5's relative position bias) comes
    from the teacher's first layer, even where that is dropped.

    Args:
        teacher: seq2seq or causal transformers model; not changed.
        every: n, to keep layers 0, n, 2n, ... of every stack; or a number for each stack.
        keep: numbers of the layers to keep, in order, the same for every stack; or for each stack. Stacks are called
            ``encoder`` and ``decoder`` in seq2seq models, ``layers`` in causal ones; a stack not named stays whole.

    Returns:
        The student in float32, in eval mode, on the teacher's device.

    Raises:
        ValueError: both or neither of ``every`` and ``keep``; numbers out of range, unsorted or repeated; an unknown
            stack; a model whose layers cannot be identified, or whose config cannot describe the pruned model.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    stacks = layer_stacks(teacher)
    kept = _kept({stack: len(layers) for stack, (_, layers) in stacks.items()}, every, keep)
    family = AutoModelForSeq2SeqLM if teacher.config.is_encoder_decoder else AutoModelForCausalLM
    try:
        config = _pruned_config(teacher.config, stacks, kept)
        with torch.random.fork_rng(devices=[]):
            student = family.from_config(config, dtype=torch.float32)
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(
            f"{type(teacher).__name__} cannot be built with layers {kept}: {error} Its config may describe each layer "
            "in a field that kvar does not know; load a smaller student by student or student_config."
        ) from error
    names = {path: kept[stack] for stack, (path, _) in stacks.items()}
    student.load_state_dict(_renamed(teacher.state_dict(), student.state_dict(), names))
    student.generation_config = deepcopy(teacher.generation_config)
    return student.to(next(teacher.parameters()).device).eval()


def parse_layers(text: str | int | Sequence[int]) -> dict[str, Any]:
    """Arguments of :func:`prune_layers` from a setting.

    Args:
        text: ``"every 3"`` or 3; ``"0,3,6"`` or a list; for a seq2seq model also one for each stack, encoder first:
            ``"every 2 / 0,5"``.

    Raises:
        ValueError: none of these.

    Examples:
        >>> parse_layers("every 3"), parse_layers("0, 3, 6")
        ({'every': 3}, {'keep': [0, 3, 6]})
    """
    parts = [_parse_part(part, text) for part in (text.split("/") if isinstance(text, str) else [text])]
    if len(parts) == 1:
        return {"every": parts[0]} if isinstance(parts[0], int) else {"keep": parts[0]}
    if len(parts) != 2:
        raise _unreadable(text)
    return {"keep": dict(zip(("encoder", "decoder"), parts, strict=True))}


def layer_stacks(model: Any) -> dict[str, tuple[str, nn.ModuleList]]:
    """The model's stacks of layers: ``encoder`` and ``decoder``, or ``layers`` -> (path, its ModuleList).

    Raises:
        ValueError: not exactly one list of modules that could be a stack.
    """
    stacks: dict[str, tuple[str, nn.ModuleList]] = {}
    for stack in ("encoder", "decoder") if model.config.is_encoder_decoder else ("layers",):
        count = getattr(model.config, _count_field(model.config, stack))
        lists = [
            (path, module)
            for path, module in model.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == count and stack in ("layers", *path.split("."))
        ]
        outer = [(path, module) for path, module in lists if not any(path.startswith(f"{p}.") for p, _ in lists)]
        if len(outer) != 1:
            raise ValueError(
                f"{type(model).__name__}: {len(outer)} lists of {count} modules could be its {stack}; kvar prunes "
                "models with one. Load a smaller student by student or student_config."
            )
        stacks[stack] = outer[0]
    return stacks


def _count_field(config: Any, stack: str) -> str:
    for name in COUNTS[stack]:
        if getattr(config, name, None) is not None:
            return name
    raise ValueError(f"{type(config).__name__} has none of {', '.join(COUNTS[stack])}: its {stack} cannot be pruned.")


def _kept(counts: dict[str, int], every: Any, keep: Any) -> dict[str, list[int]]:
    if (every is None) == (keep is None):
        raise ValueError(f"give one of every and keep; got every={every!r}, keep={keep!r}.")
    given = every if keep is None else keep
    if not isinstance(given, Mapping):
        given = dict.fromkeys(counts, given)
    unknown = sorted(set(given) - set(counts))
    if unknown:
        raise ValueError(f"no stack {unknown[0]!r} in this model; it has: {', '.join(counts)}.")
    return {stack: _numbers(given.get(stack, 1), stack, count) for stack, count in counts.items()}


def _numbers(given: int | Sequence[int], stack: str, count: int) -> list[int]:
    if isinstance(given, int):
        if not 1 <= given <= count:
            raise ValueError(f"every must be from 1 to the {count} layers of {stack}; got {given}.")
        return list(range(0, count, given))
    numbers = list(given)
    if not numbers or numbers != sorted(set(numbers)) or numbers[0] < 0 or numbers[-1] >= count:
        raise ValueError(
            f"keep must hold rising layer numbers from 0 to {count - 1} ({stack} has {count} layers); got {numbers}."
        )
    return numbers


def _pruned_config(config: Any, stacks: Mapping[str, Any], kept: dict[str, list[int]]) -> Any:
    """A config with the new layer counts and, in lists with one entry a layer, the entries of the layers kept."""
    fields = config.to_dict()
    for stack, layers in kept.items():
        count = len(stacks[stack][1])
        field = _count_field(config, stack)
        fields[config.attribute_map.get(field, field)] = len(layers)
        for name, value in list(fields.items()):
            if stack == "layers" and "layer" in name and isinstance(value, list) and len(value) == count:
                fields[name] = [value[i] for i in layers]
    pruned = type(config).from_dict(fields)
    for stack, layers in kept.items():
        if getattr(pruned, _count_field(pruned, stack)) != len(layers):
            raise ValueError(f"{type(config).__name__} does not take a number of layers for its {stack}.")
    pruned._attn_implementation = config._attn_implementation
    return pruned


def _renamed(state: dict[str, Tensor], wanted: dict[str, Tensor], kept: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """The teacher's tensors under the student's names: layer numbers are mapped, other names kept."""
    out = {}
    for name, tensor in wanted.items():
        source = name
        for path, layers in kept.items():
            match = re.match(rf"{re.escape(path)}\.(\d+)\.(.*)", name)
            if match:
                source = f"{path}.{layers[int(match[1])]}.{match[2]}"
        source = source if source in state else name
        if source not in state or state[source].shape != tensor.shape:
            raise ValueError(f"the teacher has no tensor for the pruned model's {name}; kvar cannot prune this family.")
        out[name] = state[source]
    return out


def _parse_part(part: Any, whole: Any) -> int | list[int]:
    if isinstance(part, int) and not isinstance(part, bool):
        return part
    if isinstance(part, str):
        match = re.fullmatch(r"\s*every\s+(\d+)\s*", part)
        if match:
            return int(match[1])
        part = part.split(",")
    try:
        return [int(number) for number in part]
    except (TypeError, ValueError):
        raise _unreadable(whole) from None


def _unreadable(text: Any) -> ValueError:
    return ValueError(
        f"student_layers {text!r} cannot be read: write 'every 3', or layer numbers such as '0,3,6', or one of these "
        "for the encoder and one for the decoder: 'every 2 / 0,5'."
    )
