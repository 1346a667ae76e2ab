"""The frame of the report page: style, the sorting script, and the policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
from html import escape

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; padding: 1rem;
  max-width: 90rem; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.verdict { max-width: 46rem; border-left: 4px solid #0072B2; padding-left: 1rem; }
.verdict p { margin: .5rem 0; overflow-wrap: break-word; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; } figure img { width: 100%; max-width: 40rem; height: auto; display: block; }
figcaption { color: #444; font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ddd; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.number small { display: block; color: #555; }
thead th { border-bottom: 2px solid #666; white-space: nowrap; }
tbody th { font-weight: 600; white-space: nowrap; }
.sortable thead th:nth-child(n+3) { text-align: right; }
.sortable tbody th { position: sticky; left: 0; background: #fff; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 9rem; }
thead button { font: inherit; font-weight: 600; background: none; border: 0; padding: 0; cursor: pointer;
  color: inherit; }
thead button:focus-visible { outline: 2px solid #0072B2; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
@media print { .wide { overflow: visible; } }
"""

_SCRIPT = """
document.querySelectorAll("table.sortable thead th").forEach(function (head, column, heads) {
  head.querySelector("button").addEventListener("click", function () {
    var down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    var body = head.closest("table").tBodies[0];
    var value = function (row) { return parseFloat(row.cells[column].getAttribute("data-v")); };
    Array.from(body.rows).sort(function (a, b) {
      var x = value(a), y = value(b);
      if (isNaN(x) || isNaN(y)) { return isNaN(x) - isNaN(y); }
      return down ? y - x : x - y;
    }).forEach(function (row) { body.appendChild(row); });
  });
});
"""


def page(title: str, sections: list[str]) -> str:
    """One HTML document from ready-made sections; only the sorting script may run, and nothing may be fetched."""
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    body = "\n".join(sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{body}
<script>{_SCRIPT}</script>
</body>
</html>
"""
