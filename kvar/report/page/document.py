"""The report page: filled templates, style, scripts, and a security policy that allows no other scripts."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kvar.records.parts import replace_file
from kvar.report.page.explore import explore_data
from kvar.report.page.script_json import script_json

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TEMPLATES", "write_page"]

TEMPLATES = Environment(
    loader=PackageLoader("kvar.report.page"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
"""The files of ``kvar/report/page/templates``; every value that is not Markup is escaped."""

_UNBROKEN = re.compile(r"(?<=K) (?== )|(?<=K =) |(?<=[0-9]) (?=%)")  # spaces of "K = 4" and "5 %": no line breaks there
TEMPLATES.filters["script_json"] = script_json
TEMPLATES.filters["unbroken"] = lambda text: _UNBROKEN.sub("\u00a0", text)


def write_page(
    path: str | Path,
    *,
    title: str,
    lead: str,
    table: Any = None,
    details: Sequence[Sequence[str]] = (),
    beware: Sequence[str] = (),
    opening: Sequence[Markup] = (),
    explore: pd.DataFrame | None = None,
    figures: Mapping[str, str] | None = None,
    sections: Sequence[Markup] = (),
    notes: Sequence[str] = (),
    responses: Mapping[str, Any] | None = None,
    samples: Sequence[Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write one self-contained HTML file: only its own scripts may run, and nothing may be fetched.

    Args:
        path: the file, written all or nothing; its folder is created.
        title: of the page.
        lead: the verdict in one sentence.
        table: the verdict as a small table, from :func:`kvar.report.page.sections.grid`.
        details: paragraphs of sentences, folded below it.
        beware: sentences before it.
        opening: as ``sections``, before the plot.
        explore: statistics frame of the interactive plot, see :func:`kvar.report.page.explore.explore_data`.
        figures: title -> ``data:`` address.
        sections: from :func:`kvar.report.page.sections.section`.
        notes: a list after the sections.
        responses: from :func:`kvar.report.page.responses.responses_data`.
        samples: texts to show, one mapping each.
        settings: of several runs, from :func:`kvar.report.page.settings.settings_of`.
        config: settings of one run, flat.
        provenance: name -> text, or name -> mapping, which is folded.
    """
    plot = None if explore is None else explore_data(explore)
    scripts = [_asset("sort.js")]
    if plot:
        scripts += [_plotly(), _asset("series.js"), _asset("explore.js")]
    if responses and responses["shown"]:
        scripts.append(_asset("responses.js"))
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    text = TEMPLATES.get_template("page.html").render(
        policy=f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed}",
        style=_asset("page.css"), scripts=scripts, title=title, lead=lead, table=table, details=details, beware=beware,
        opening=opening, explore=plot, figures=figures, sections=sections, notes=notes, responses=responses,
        samples=samples, settings=settings, config=config, provenance=provenance,
    )  # fmt: skip
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, text.encode())
    return target


@cache
def _asset(name: str) -> Markup:
    return Markup((Path(__file__).parent / "assets" / name).read_text(encoding="utf-8"))


@cache
def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())
