r"""Sphinx extension: formulas as MathML, by docutils' own converter; pages need neither a network nor JavaScript.

Equations are numbered by hand, ``\tag{11'}``, so that docstrings can cite them; a tag becomes the anchor ``eq-11'``.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.errors import ExtensionError

# An operator's name is set off from what it is applied to, as LaTeX does; docutils leaves that to a space of one's own.
NAME = re.compile(r"(\\operatorname\{\w+\}|\\log)(_\w)?\s+(?=[A-Za-z]|\\(?:operatorname|pi|mathrm|max))")
FENCE = re.compile(r"<mo>([{}⟨⟩])</mo>")  # as high as a letter, unless \left asks for more
BAR = re.compile(r'<mo stretchy="false">\|</mo>')  # a norm's, not a relation's
TAG = re.compile(r"\s*\\tag\{([^}]*)\}")


def convert(node: nodes.Element, *, block: bool) -> tuple[str, str]:
    """A formula as MathML, and its tag ("" without one).

    Raises:
        ExtensionError: LaTeX that docutils does not know; the message holds the formula and where it stands.
    """
    text = node.astext()
    tags = TAG.findall(text)
    try:
        tree = tex2mathml(NAME.sub(r"\1\2\\,", TAG.sub("", text).strip()), as_block=block)
    except MathError as error:
        raise ExtensionError(f"{node.source}:{node.line}: {error} in the formula {text!r}") from error
    made = tree if isinstance(tree, str) else tree.toxml()
    if not re.search(r"\\left\s*\\(?:\{|langle)", text):
        made = FENCE.sub(r'<mo stretchy="false">\1</mo>', made)
    return BAR.sub('<mo stretchy="false" lspace="0" rspace="0">|</mo>', made), " ".join(tags)


def visit_inline(self: Any, node: nodes.Element) -> None:
    """Write an inline formula."""
    self.body.append(convert(node, block=False)[0])
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.Element) -> None:
    """Write a displayed formula with its number on the right."""
    formula, tag = convert(node, block=True)
    number = f'<a class="number" href="#eq-{escape(tag)}">({escape(tag)})</a>' if tag else ""
    anchor = f' id="eq-{escape(tag)}"' if tag else ""
    self.body.append(f'<div class="equation"{anchor}>{formula}{number}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer; ``html_math_renderer = "mathml"`` chooses it."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
