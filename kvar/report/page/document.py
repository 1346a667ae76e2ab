"""The frame of the report page: style, scripts, and the policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files

__all__ = ["asset", "page"]


@cache
def asset(name: str) -> str:
    """The text of a file of ``kvar/report/page/assets``."""
    return files("kvar.report.page").joinpath("assets", name).read_text(encoding="utf-8")


def page(title: str, sections: Sequence[str], scripts: Sequence[str] = ()) -> str:
    """One HTML document from ready-made sections; only the given scripts may run, and nothing may be fetched.

    Args:
        title: of the page.
        sections: HTML.
        scripts: JavaScript, in order, after the script that sorts tables; each runs after the sections are there.
    """
    every = [asset("sort.js"), *scripts]
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in every)
    policy = f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed}"
    body = "\n".join(sections)
    run = "\n".join(f"<script>{script}</script>" for script in every)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{asset("page.css")}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{body}
{run}
</body>
</html>
"""


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
