"""Parameter groups: lists of trainable parameters by name, and one group per layer of any transformer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from torch import nn

from kvar.rollouts.sharded import standing_in

__all__ = ["GroupSpec", "layer_groups", "resolve_groups", "stacks"]

GroupSpec: TypeAlias = str | Iterable[nn.Parameter | str]
"""A module path or parameter name ("decoder.block.0"), or an iterable of such names and of parameters."""


def resolve_groups(student: nn.Module, groups: Mapping[str, GroupSpec] | None = None) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters of every group; the group "all" comes first and holds every trainable parameter.

    A string selects the parameter of that name, or every parameter of the module at that path. Tied parameters count
    once and are selected by any of their names. Frozen parameters (``requires_grad`` false) are left out.

    Args:
        student: the module whose parameters are grouped.
        groups: group name -> :data:`GroupSpec`; groups may overlap.

    Returns:
        Group name -> parameters, each parameter at most once, in the order of ``student.parameters()``.

    Raises:
        ValueError: no trainable parameter in the student or in a group, a name that selects nothing, a parameter of
            another module, or a group "all" that is not every trainable parameter.

    Example:
        >>> student = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> {name: len(group) for name, group in resolve_groups(student, {"head": "1", "biases": ["0.bias"]}).items()}
        {'all': 4, 'head': 2, 'biases': 1}
    """
    trainable = [p for p in student.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError(
            "student has no trainable parameter (requires_grad is False everywhere): unfreeze what is to be measured."
        )
    resolved = {"all": trainable}
    if groups is not None and not isinstance(groups, Mapping):
        raise TypeError(f"groups must be a mapping, name -> parameters or their names; got {type(groups).__name__}.")
    for name, spec in (groups or {}).items():
        if not isinstance(spec, Iterable):
            raise TypeError(f"groups[{name!r}] must be names or parameters; got {type(spec).__name__}.")
        wanted = _selected(student, name, spec)
        members = [p for p in trainable if id(p) in wanted]
        if not members:
            raise ValueError(
                f"groups[{name!r}] has no trainable parameter: unfreeze some of it or leave the group out."
            )
        if name == "all" and len(members) != len(trainable):
            raise ValueError(
                f"groups['all'] names {len(members)} of {len(trainable)} trainable parameters, but 'all' always means "
                "every one: use another name for this group."
            )
        resolved[name] = members
    return resolved


def _selected(student: nn.Module, group: str, spec: GroupSpec) -> set[int]:
    """Ids of the student's parameters that ``spec`` selects."""
    named = list(student.named_parameters(remove_duplicate=False))
    known = {id(p) for _, p in named}
    chosen: set[int] = set()
    for entry in [spec] if isinstance(spec, (str, nn.Parameter)) else spec:
        if isinstance(entry, str):
            prefix = entry if entry.endswith(".") else entry + "."
            selected = {id(p) for name, p in named if name == entry or name.startswith(prefix)}
            if not selected:
                raise ValueError(
                    f"groups[{group!r}] names {entry!r}, which is no parameter and no module with parameters: "
                    f"use names from student.named_parameters(), for example {named[0][0]!r}."
                )
            chosen |= selected
        elif id(standing_in(entry)) in known:
            chosen.add(id(standing_in(entry)))
        else:
            raise ValueError(
                f"groups[{group!r}] holds an entry of type {type(entry).__name__} that is no parameter of the student: "
                "pass parameters of the very module that is measured, or their names."
            )
    return chosen


def layer_groups(student: nn.Module) -> dict[str, list[str]]:
    """Parameter names grouped by layer: every block of every stack, the embeddings, and what remains.

    A stack is an outermost ``nn.ModuleList`` with parameters (``encoder.block``, ``model.layers``, ``transformer.h``);
    its blocks become groups such as "encoder.block.0". Parameters of ``nn.Embedding`` modules outside stacks, tied ones
    included, are "embeddings"; an output layer that is not tied is "output"; the rest (such as final norms) is "other".
    Every trainable parameter is in exactly one group.

    Args:
        student: a transformers model or any module.

    Returns:
        Group name -> parameter names, for ``gradient_moments(..., groups=...)``, in the order of the module tree.

    Raises:
        ValueError: no trainable parameter.

    Example:
        >>> from torch import nn
        >>> model = nn.ModuleDict({"embed": nn.Embedding(5, 2), "layers": nn.ModuleList([nn.Linear(2, 2)] * 1)})
        >>> layer_groups(model)
        {'embeddings': ['embed.weight'], 'layers.0': ['layers.0.weight', 'layers.0.bias']}
    """
    outermost = stacks(student)
    embedded = {id(p) for m in student.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    head = getattr(student, "get_output_embeddings", lambda: None)()
    output = {id(p) for p in head.parameters()} if isinstance(head, nn.Module) else set()
    groups: dict[str, list[str]] = {}
    for name, parameter in student.named_parameters():
        if not parameter.requires_grad:
            continue
        block = next((f"{s}.{name[len(s) + 1 :].split('.')[0]}" for s in outermost if name.startswith(s + ".")), None)
        if block is None:
            block = "embeddings" if id(parameter) in embedded else "output" if id(parameter) in output else "other"
        groups.setdefault(block, []).append(name)
    if not groups:
        raise ValueError("student has no trainable parameter: unfreeze what is to be measured.")
    return groups


def stacks(student: nn.Module) -> list[str]:
    """Names of the outermost module lists that hold parameters."""
    outermost: list[str] = []
    for name, module in student.named_modules():
        inside = any(name.startswith(outer + ".") for outer in outermost)
        if isinstance(module, nn.ModuleList) and name and not inside and any(True for _ in module.parameters()):
            outermost.append(name)
    return outermost
