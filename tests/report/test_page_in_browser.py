"""The report in a real browser: opens without a complaint or a request, answers its controls, and no text runs."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from kvar.analysis.frames.across_seeds import across_seeds
from kvar.plots import STATISTICS, variance_against_k
from kvar.report import section, write_report
from kvar.report.page.evaluations import samples_of, scores_frame
from kvar.report.page.explore import MEAN
from kvar.report.page.provenance import provenance_of
from kvar.report.page.responses import responses_data
from kvar.results.places import places_of
from tests.browser import browser, needs_browser
from tests.plots.statistics_frames import study
from tests.report.small_runs import write_run

pytestmark = needs_browser

EVIL = ["<script>window.hacked=1</script>", "<img src=x onerror=window.hacked=1>", "</script>\u2028<!--"]
PLOT = "document.getElementById('explore-plot')"
ANSWERED = f"!!document.querySelector('#explore-plot .main-svg') && {PLOT}.data.length"


def spell_evil(folder):
    vocabulary = {text: i for i, text in enumerate(EVIL)}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, EVIL[0]))).save_pretrained(folder)


def grid():
    """A study of two tasks, three students, two methods and two seeds, of known numbers."""
    rng = np.random.default_rng(0)
    one = study()
    one = pd.concat([one, one.assign(group="head")], ignore_index=True)
    cells = [
        one.assign(task=task, method=method, seed=seed, value=one["value"] * rng.uniform(0.5, 1.5, len(one)))
        for task in ("sums", "words")
        for method in ("<b>llmr", "K=2")
        for seed in (0, 1)
    ]
    return pd.concat(cells, ignore_index=True)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    runs = [write_run(folder / student / "K=2", steps=(0, 10), prompts=20) for student in ("small", "large")]
    for run in runs:
        spell_evil(run.path / "model")
    sample = {"prompt": EVIL[0], "target": EVIL[1], "text": EVIL[2]}
    scores = {"split": "test", "examples": 3, "metrics": {"bleu": 9.5}, "samples": [sample]}
    (runs[0].path / "evaluation.json").write_text(json.dumps(scores))
    places = places_of(runs)
    frame = grid()
    frame.to_parquet(folder / "statistics.parquet")
    return write_report(
        folder / "report.html",
        study(),
        explore=frame,
        figures={EVIL[1]: variance_against_k(study())},
        configs={EVIL[0] + str(place): run.config for place, run in zip(places, runs, strict=True)},
        responses=responses_data(runs, places),
        samples=samples_of(runs, places),
        further=[section(EVIL[0], scores_frame(runs, places), EVIL[2])],
        provenance=provenance_of(runs),
    )


@pytest.fixture(scope="module")
def opened(report, tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as tab:
        tab.open(report)
        tab.until(ANSWERED)
        yield tab


def choose(tab, name, value):
    script = f"const s = document.querySelector('select[name={name}]'); s.value = {json.dumps(value)};"
    assert tab.value(f"(() => {{ {script} s.dispatchEvent(new Event('change')); return s.value }})()") == value
    tab.value("new Promise(done => requestAnimationFrame(() => done(true)))")


def drawn(tab):
    found = tab.value(
        f"{PLOT}.data.filter(t => t.mode !== 'markers').map(t => [t.name, Array.from(t.y).filter(y => y !== null)])"
    )
    return {name: values for name, values in found}


def test_it_opens_without_complaint_or_network_and_no_text_of_a_model_runs(opened, report):
    shown = opened.value("document.body.innerText")
    assert all(text in shown for text in EVIL[:2]) and "</script>" in shown
    assert opened.value("typeof window.hacked") == "undefined"
    assert opened.value("document.querySelectorAll('img[src=x], #responses-list script, td script').length") == 0
    page = report.resolve().as_uri()
    assert {address for address in opened.requests if not address.startswith(("data:", "blob:"))} == {page}
    assert opened.complaints == []


def test_choosers_change_the_plot_and_the_numbers_are_those_on_disk(opened, report):
    frame = pd.read_parquet(report.with_name("statistics.parquet"))
    trace = list(STATISTICS).index("trace")
    choose(opened, "statistic", str(trace))
    choose(opened, "seed", "1")
    choose(opened, "method", "K=2")
    choose(opened, "student", "")
    at = {"task": "sums", "method": "K=2", "seed": 1, "statistic": "trace"}
    own = frame[(frame[list(at)] == pd.Series(at)).all(axis=1)]
    before = drawn(opened)
    assert set(before) == {"small (22k)", "medium (90k)", "large (500k)"}
    shown = own[(own["student"] == "large") & (own["step"] == 200) & (own["group"] == "all")].sort_values("k")
    assert before["large (500k)"] == pytest.approx(shown["value"].tolist(), rel=1e-4)
    choices = {"group": "head", "step": "0", "task": "words", "student": "large", "method": "<b>llmr", "seed": MEAN}
    for name, value in {**choices, "against": "step"}.items():
        choose(opened, name, value)
        after = drawn(opened)
        assert list(after.values()) != list(before.values()), name
        before = after
    assert list(before) == ["K=1", "K=2", "K=4", "K=8", "immediate"]  # of one line over training
    own = across_seeds(frame[(frame["task"] == "words") & (frame["method"] == "<b>llmr") & (frame["group"] == "head")])
    own = own[(own["student"] == "large") & (own["statistic"] == "trace") & (own["kernel"] == "K=4")]
    assert before["K=4"] == pytest.approx(own["value"].tolist(), rel=1e-4)
    choose(opened, "against", "size")
    choose(opened, "student", "")
    assert opened.value(f"{PLOT}.data[0].x") == [22000, None, 90000, None, 500000]
    for name, value in {"against": "K", "step": "last", "method": ""}.items():
        choose(opened, name, value)
    assert "small (22k), &lt;b&gt;llmr" in drawn(opened)


def test_hover_shows_a_value_with_its_interval(opened):
    point = "document.querySelectorAll('#explore-plot .scatterlayer .point')[1]"
    opened.value(f"{PLOT}.scrollIntoView(), true")
    x, y = opened.value(
        f"(() => {{ const r = {point}.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] }})()"
    )
    opened.move(x - 30, y)
    opened.move(x, y)
    said = opened.until("document.querySelector('#explore-plot .hoverlayer .hovertext')?.textContent")
    value = opened.value(f"{PLOT}.data[0].y[1].toPrecision(3)")
    assert str(float(value)) in said and " to " in said and "n = 2 seeds" in said and "K=2" in said


def test_tables_sort_by_value_with_mouse_and_keyboard(opened):
    table = "document.getElementById('explore-table').querySelector('table')"
    column = f"Array.from({table}.tBodies[0].rows).map(r => parseFloat(r.cells[4].dataset.v))"
    head = f"{table}.tHead.rows[0].cells[4]"
    opened.value("document.querySelector('#explore details').open = true")
    opened.value(f"{head}.querySelector('button').click()")
    up = opened.value(column)
    assert up == sorted(up) and len(set(up)) > 3
    assert opened.value(f"{head}.getAttribute('aria-sort')") == "ascending"
    opened.value(f"{head}.querySelector('button').focus()")
    opened.press("Enter")
    assert opened.value(column) == up[::-1]
    assert opened.value(f"{head}.getAttribute('aria-sort')") == "descending"
    assert opened.value(f"getComputedStyle({head}.querySelector('button'), '::after').content").strip('" ') == "▼"


def test_tokens_are_coloured_by_their_gap_and_read_out(opened, report):
    spans = "Array.from(document.querySelectorAll('#responses-list .token'))"
    assert opened.value("document.getElementById('responses-said').textContent").startswith("6 of 80 responses")
    found = opened.value(f"{spans}.map(s => [s.className, s.title, getComputedStyle(s).backgroundColor])")
    gaps = [float(title.split("gap ")[1].split()[0].rstrip(",")) for _, title, _ in found]
    shades = {name: colour for name, _, colour in found}
    for (name, *_), gap in zip(found, gaps, strict=True):
        assert name.startswith("token gap-0") == (gap == 0)
        assert gap == 0 or name == f"token gap-{sum(gap > end for end in (0, 1, 2, 4, 8))}"
    assert len(set(shades.values())) == len(shades) > 1
    opened.value(f"{spans}[0].parentNode.focus()")
    opened.press("ArrowRight")
    said = opened.value("document.getElementById('responses-detail').textContent")
    assert "gap" in said and "log-probability" in said and said == found[0][1]
    before = opened.value("document.getElementById('responses-list').textContent")
    opened.value("(() => { const s = document.getElementById('responses-step'); s.selectedIndex = 0;"
                 "s.dispatchEvent(new Event('change')) })()")  # fmt: skip
    assert opened.value("document.getElementById('responses-list').textContent") != before


@pytest.mark.parametrize("width", [400, 1600])
def test_the_page_never_scrolls_sideways_and_the_plot_fits(opened, width):
    opened.resize(width)
    assert opened.until(f"document.documentElement.clientWidth > {width - 40}")
    opened.value("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert opened.value("document.documentElement.scrollWidth <= innerWidth")
    drawn_wide = f"{PLOT}.querySelector('.main-svg').getBoundingClientRect().width"
    assert opened.until(f"Math.abs({drawn_wide} - {PLOT}.clientWidth) < 2")
    assert opened.value(f"{PLOT}.clientWidth") > 0.8 * min(width, 1440) - 40
    assert opened.complaints == []


def test_without_scripts_verdict_tables_and_figures_are_there(report, tmp_path):
    with browser(tmp_path) as tab:
        tab.call("Emulation.setScriptExecutionDisabled", value=True)
        tab.open(report)
        root = tab.call("DOM.getDocument", depth=1)["root"]["nodeId"]
        for what, height in (
            (".verdict", 40),
            ("table.sortable tbody tr", 10),
            ("figure img", 100),
            ("noscript p", 10),
        ):
            node = tab.call("DOM.querySelector", nodeId=root, selector=what)["nodeId"]
            assert tab.call("DOM.getBoxModel", nodeId=node)["model"]["height"] > height, what
        hidden = tab.call("DOM.querySelector", nodeId=root, selector="#explore")["nodeId"]
        with pytest.raises(RuntimeError, match="box model"):
            tab.call("DOM.getBoxModel", nodeId=hidden)
