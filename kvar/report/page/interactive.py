"""The page's interactive parts: where scripts draw the plot and the coloured responses, and the data they read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from kvar.report.page.document import asset
from kvar.report.page.explore import explore_data
from kvar.report.page.script_json import script_json

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["explore_html", "interactive_parts", "responses_html"]

_GAPS = (
    ("0", "0: the teacher's favourite"),
    ("1", "up to 1"),
    ("2", "to 2"),
    ("3", "to 4"),
    ("4", "to 8"),
    ("5", "above 8"),
)


def interactive_parts(
    frame: pd.DataFrame | None, responses: Mapping[str, Any] | None
) -> tuple[list[str], list[str], list[str]]:
    """The interactive sections of a page and the scripts that they need.

    Args:
        frame: a statistics frame, see :func:`kvar.report.page.explore.explore_data`; None for no plot.
        responses: from :func:`kvar.report.page.responses.responses_data`; None for no responses.

    Returns:
        The plot's sections, the responses' sections (each none or one), and scripts for the page.
    """
    plot, sampled, scripts = [], [], []
    if frame is not None:
        plot.append(explore_html(explore_data(frame)))
        scripts += [_plotly(), asset("series.js"), asset("explore.js")]
    if responses is not None and responses["shown"]:
        sampled.append(responses_html(responses))
        scripts.append(asset("responses.js"))
    return plot, sampled, scripts


def explore_html(data: Mapping[str, Any]) -> str:
    """The section of the interactive plot.

    Args:
        data: from :func:`kvar.report.page.explore.explore_data`.
    """
    left = data["measured"] - data["shown"]
    cut = (
        f"<p>The page carries {data['shown']} of {data['measured']} values; parameter groups, then early steps, are "
        "left out. All are in statistics.parquet.</p>"
        if left
        else ""
    )
    return f"""<section aria-label="Explore">
<h2>Explore</h2>
<noscript><p>The interactive plot needs JavaScript; the figures and tables of this page do not.</p></noscript>
<div id="explore" hidden>
<div class="controls" id="explore-controls"></div>
<div id="explore-plot"></div>
<p id="explore-note" aria-live="polite"></p>
<details><summary>The numbers of this plot</summary><div class="wide" id="explore-table"></div></details>
{cut}</div>
{_data("explore-data", data)}
</section>"""


def responses_html(data: Mapping[str, Any]) -> str:
    """The section of sampled responses with coloured gaps.

    Args:
        data: from :func:`kvar.report.page.responses.responses_data`.
    """
    below = any(gap < -1e-6 for shown in data["shown"] for response in shown[4] for gap in response["gap"])
    gaps = [*((("below", "below 0"),) if below else ()), *_GAPS]
    legend = "".join(f'<li><span class="gap-{name}">{text}</span></li>' for name, text in gaps)
    return f"""<section aria-label="Sampled responses">
<h2>Sampled responses and their gaps</h2>
<noscript><p>Coloured responses need JavaScript.</p></noscript>
<div id="responses" hidden>
<p>Responses that the student sampled for a probe. Colour is the teacher's gap V - q at a token, in logits: how far the
token falls behind the teacher's favourite there.</p>
<div class="controls">
<label>Run<select id="responses-run"></select></label>
<label>Step<select id="responses-step"></select></label>
</div>
<ul class="legend" aria-label="gap">{legend}</ul>
<p id="responses-said"></p>
<p id="responses-detail" class="detail" aria-live="polite"></p>
<div id="responses-list"></div>
</div>
{_data("responses-data", data)}
</section>"""


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _data(name: str, data: Mapping[str, Any]) -> str:
    return f'<script type="application/json" id="{name}">{script_json(data)}</script>'
