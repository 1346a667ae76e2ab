"""YAML by the core schema of version 1.2, without repeated keys.

PyYAML reads YAML 1.1, in which 1e-5 is text, "no" a boolean, 010 eight and 12:30 a number, and keeps the last of two
equal keys.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

__all__ = ["parse_yaml"]

# yaml.org/spec/1.2.2, 10.3.2, and "<<" of version 1.1
CORE = (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}  # type: ignore[misc]

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                raise ValueError(f"{name!r} occurs twice, in lines {lines[name]} and {line}; keep one of them.")
            lines[name] = line
        return node

    def construct_yaml_int(self, node: Any) -> int:
        text = str(self.construct_scalar(node))
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


for _tag, _pattern, _first in CORE:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_yaml(text: str, origin: str) -> Any:
    """The content of a YAML text.

    Args:
        text: YAML of one document.
        origin: its source, for error messages.

    Raises:
        ValueError: not YAML, or a key twice in one mapping.

    Examples:
        >>> parse_yaml("{rate: 1e-5, save: no, layers: [0o17, 010, 1_0], at: 12:30, on: yes}", "-")
        {'rate': 1e-05, 'save': 'no', 'layers': [15, 10, '1_0'], 'at': '12:30', 'on': 'yes'}
        >>> parse_yaml("{a: True, b: .5, c: ~, d: '1', e: -.inf, f: null}", "-")
        {'a': True, 'b': 0.5, 'c': None, 'd': '1', 'e': -inf, 'f': None}
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{origin} cannot be read as YAML: {' '.join(str(error).split())}") from error
    except (ValueError, KeyError, TypeError) as error:  # a repeated key, or a tag that does not fit its value
        raise ValueError(f"{origin}: {error}") from error
