"""Pictures as text inside a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kvar.plots.parts.style import context

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["data_uri"]

_TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def data_uri(figure: Any, title: str) -> str:
    """A picture as a ``data:`` address, for the src of an img, where an SVG's scripts do not run.

    Args:
        figure: a matplotlib figure, axes of one, or the path of a PNG, SVG or JPEG file.
        title: its name, for the error.

    Raises:
        ValueError: the file does not exist, is empty or has another ending.
    """
    if hasattr(figure, "savefig") or hasattr(figure, "get_figure"):
        drawn = cast("Figure", figure if hasattr(figure, "savefig") else figure.get_figure(root=True))
        buffer = io.BytesIO()
        with context():
            drawn.savefig(buffer, format="svg", metadata={"Date": None})
        kind, data = _TYPES[".svg"], buffer.getvalue()
    else:
        path = Path(figure)
        if path.suffix.lower() not in _TYPES:
            raise ValueError(f"figure {title!r}: {path.name} is not one of {', '.join(_TYPES)}.")
        if not path.is_file() or path.stat().st_size == 0:
            raise ValueError(f"figure {title!r}: the file {path} does not exist or is empty.")
        kind, data = _TYPES[path.suffix.lower()], path.read_bytes()
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
