"""Parameter groups by layer, for any transformer."""

from __future__ import annotations

from torch import nn

__all__ = ["layer_groups", "stacks"]


def layer_groups(student: nn.Module) -> dict[str, list[str]]:
    """Parameter names grouped by layer: every block of every stack, the embeddings, and what remains.

    A stack is an outermost ``nn.ModuleList`` with parameters (``encoder.block``, ``model.layers``, ``transformer.h``);
    its blocks become groups such as "encoder.block.0". Parameters of ``nn.Embedding`` modules outside stacks, tied ones
    included, are "embeddings"; the output layer, where its weight is its own, is "output"; the rest (final norms and
    the like) is "other". Every trainable parameter is in exactly one group.

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
    found: list[str] = []
    for name, module in student.named_modules():
        inside = any(name.startswith(outer + ".") for outer in found)
        if isinstance(module, nn.ModuleList) and name and not inside and any(True for _ in module.parameters()):
            found.append(name)
    return found
