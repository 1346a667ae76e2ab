"""Parameter groups: from what a user names to lists of trainable parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from torch import nn

__all__ = ["GroupSpec", "resolve_groups"]

GroupSpec: TypeAlias = str | Iterable[nn.Parameter | str]
"""A module path or parameter name ("decoder.block.0"), or an iterable of such names and of parameters."""


def resolve_groups(student: nn.Module, groups: Mapping[str, GroupSpec] | None = None) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters of every group; the group "all" comes first and holds every trainable parameter.

    A string selects the parameter of that name, or every parameter of the module at that path. Tied parameters count
    once and answer to each of their names. Frozen parameters (``requires_grad`` false) are left out.

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
        >>> {name: len(found) for name, found in resolve_groups(student, {"head": "1", "biases": ["0.bias"]}).items()}
        {'all': 4, 'head': 2, 'biases': 1}
    """
    trainable = [p for p in student.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError(
            "student has no trainable parameter (requires_grad is False everywhere): unfreeze what is to be measured."
        )
    resolved = {"all": trainable}
    for name, spec in (groups or {}).items():
        wanted = _selected(student, name, spec)
        found = [p for p in trainable if id(p) in wanted]
        if not found:
            raise ValueError(
                f"groups[{name!r}] has no trainable parameter: unfreeze some of it or leave the group out."
            )
        if name == "all" and len(found) != len(trainable):
            raise ValueError(
                f"groups['all'] names {len(found)} of {len(trainable)} trainable parameters, but 'all' always means "
                "every one: use another name for this group."
            )
        resolved[name] = found
    return resolved


def _selected(student: nn.Module, group: str, spec: GroupSpec) -> set[int]:
    """Ids of the student's parameters that ``spec`` selects."""
    named = list(student.named_parameters(remove_duplicate=False))
    own = {id(p) for _, p in named}
    chosen: set[int] = set()
    for entry in [spec] if isinstance(spec, (str, nn.Parameter)) else spec:
        if isinstance(entry, str):
            prefix = entry if entry.endswith(".") else entry + "."
            found = {id(p) for name, p in named if name == entry or name.startswith(prefix)}
            if not found:
                raise ValueError(
                    f"groups[{group!r}] names {entry!r}, which is no parameter and no module with parameters: "
                    f"use names from student.named_parameters(), for example {named[0][0]!r}."
                )
            chosen |= found
        elif id(entry) in own:
            chosen.add(id(entry))
        else:
            raise ValueError(
                f"groups[{group!r}] holds an entry of type {type(entry).__name__} that is no parameter of the student: "
                "pass parameters of the very module that is measured, or their names."
            )
    return chosen
