"""Keys written twice in a YAML mapping: YAML readers keep the last one without a word."""

from __future__ import annotations

from pathlib import Path

__all__ = ["check_keys"]


def check_keys(path: Path) -> None:
    """Refuse a file in which a mapping names a key twice.

    Args:
        path: a YAML file that can be read.

    Raises:
        ValueError: the message names file, lines and key.
    """
    import yaml

    todo = [yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)]
    looked_at: set[int] = set()  # an anchored mapping is met again wherever it is referred to
    while todo:
        node = todo.pop()
        if node is None or id(node) in looked_at or isinstance(node, yaml.ScalarNode):
            continue
        looked_at.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                raise ValueError(
                    f"{path}: {name!r} is there twice, in lines {lines[name]} and {line}; keep one of them."
                )
            lines[name] = line
            todo.append(value)
