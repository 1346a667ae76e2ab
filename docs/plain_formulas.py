"""Sphinx extension: docstrings write formulas in plain text, |E g|^2 or theta_-i, which is kept from being markup.

An indented block below a line that ends in a colon and an empty line is shown as it stands.
"""

from __future__ import annotations

import re
from typing import Any

CODE = re.compile(r"(``.*?``|`[^`]*`_?)")
EMPHASIS = re.compile(r"(?<![\w*])(\*{1,2})(?=[^\s*])[^*]*[^\s*]\1(?![\w*])")


def escape(text: str) -> str:
    r"""Escape what reStructuredText would take for markup in a line of a docstring.

    Example:
        >>> print(escape("m2 = |g|^2, theta_-i, g* and ``|x|_``, *not* a * b"))
        m2 = \|g\|^2, theta\_-i, g\* and ``|x|_``, *not* a \* b
    """
    parts = CODE.split(text)
    for i in range(0, len(parts), 2):
        kept = [found.span() for found in EMPHASIS.finditer(parts[i])]
        parts[i] = "".join(
            f"\\{c}" if _is_markup(parts[i], j) and not any(a <= j < b for a, b in kept) else c
            for j, c in enumerate(parts[i])
        )
    return "".join(parts)


def _is_markup(text: str, at: int) -> bool:
    """Whether the sign at ``at`` could start or end markup: | and * anywhere, _ where a word ends."""
    if text[at] == "_":
        return at > 0 and text[at - 1].isalnum() and not (at + 1 < len(text) and re.match(r"\w", text[at + 1]))
    return text[at] in "|*"


def keep_formulas(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Escape the lines of a docstring that are neither doctest nor literal block."""
    doctest, literal = False, -1
    for i, line in enumerate(lines):
        indent = _indent(lines, i)
        if line.strip() and literal >= 0 and indent <= literal:
            literal = -1
        doctest = bool(line.strip()) and (doctest or line.lstrip().startswith(">>>"))
        if not doctest and literal < 0:
            lines[i] = escape(line)
            below = i + 2 if i + 1 < len(lines) and not lines[i + 1].strip() else len(lines)
            if re.search(r"(?<!:):$", line.rstrip()) and _indent(lines, below) > indent:
                lines[i] = lines[i].rstrip() + ":"
            if lines[i].rstrip().endswith("::"):
                literal = indent


def _indent(lines: list[str], i: int) -> int:
    """Spaces before the text of line ``i``; 0 past the end."""
    return len(lines[i]) - len(lines[i].lstrip()) if i < len(lines) else 0


def setup(app: Any) -> dict[str, bool]:
    """Run before napoleon, on docstrings as they are written."""
    app.connect("autodoc-process-docstring", keep_formulas, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
