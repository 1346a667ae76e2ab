"""The report page: whole, self-contained, and deaf to what model text contains."""

from __future__ import annotations

import base64
from hashlib import sha256
from html.parser import HTMLParser

import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

import kvar.plots as plots
from kvar.report import verdict, write_report
from kvar.report.page.by_run import NO_PROBES
from kvar.report.page.settings import differing_fields

VOID = {"meta", "img", "br", "link"}
EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """Tags in order; refuses a page whose tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def text(self):
        return " ".join(data for tag, data in self.texts if tag not in ("script", "style"))


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "dot.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>')
    return path


def test_page_has_verdict_first_then_figures_table_config_provenance(frame, picture, tmp_path):
    figures = {"SNR": plots.snr_against_k(frame), "SNR again": plots.snr_against_k(frame).figure, "dot": picture}
    path = write_report(
        tmp_path / "deep" / "report.html",
        frame,
        figures=figures,
        config={"model": {"layers": 2}, "seed": 0},
        samples=[{"prompt": "2 + 2", "response": "4"}, {"prompt": "1 + 1", "reference": "2"}],
        provenance={"command": "kvar demo"},
    )
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    plain = page.text().replace("\u00a0", " ")
    assert " ".join(verdict(frame)[4:8]) in plain
    order = [
        plain.index(s) for s in ("Measured on n = 256", "Figures", "Statistics", "Samples", "model.layers", "kvar demo")
    ]
    assert order == sorted(order)
    assert [img["alt"] for img in page.all("img")] == ["SNR", "SNR again", "dot"]
    assert not list(path.parent.glob(".*"))


def test_page_is_self_contained(frame, picture, tmp_path):
    path = write_report(tmp_path / "r.html", frame, figures={"SNR": plots.snr_against_k(frame), "dot": picture})
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    for _, attrs in page.tags:
        for name in ("src", "href", "action", "srcset"):
            assert attrs.get(name, "data:").startswith("data:")
    assert "default-src 'none'" in page.all("meta")[1]["content"]
    allowed = page.all("meta")[1]["content"].partition("script-src ")[2].split()
    run = [code for tag, code in page.texts if tag == "script" and not code.startswith("{")]
    assert allowed == [f"'sha256-{base64.b64encode(sha256(code.encode()).digest()).decode()}'" for code in run]
    assert "https://" not in text.replace(
        get_plotlyjs(), ""
    )  # which has addresses and, under default-src, no use of them
    first = page.all("img")[0]["src"]
    assert b"<svg" in base64.b64decode(first.split(",")[1])


def test_text_from_outside_is_text(frame, tmp_path):
    evil = frame.assign(student=EVIL + frame["student"], kernel=frame["kernel"] + EVIL)
    path = write_report(
        tmp_path / "r.html",
        evil,
        figures={EVIL: plots.snr_against_k(frame)},
        config={EVIL: EVIL},
        samples=[{EVIL: EVIL}],
        provenance={"command": EVIL},
        title=EVIL,
    )
    page = Page(path.read_text(encoding="utf-8"))
    plain = Page(write_report(tmp_path / "p.html", frame).read_text(encoding="utf-8"))
    assert len(page.all("script")) == len(plain.all("script"))
    assert len(page.all("img")) == 1
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert page.text().count(EVIL) > 10
    given = write_report(tmp_path / "s.html", frame, verdict=["Up " + EVIL])
    assert len(Page(given.read_text(encoding="utf-8")).all("script")) == len(plain.all("script"))


def test_table_holds_every_statistic_and_sorts_by_value(frame, tmp_path):
    page = Page(write_report(tmp_path / "r.html", frame).read_text(encoding="utf-8"))
    heads = [data for tag, data in page.texts if tag == "button"]
    assert heads[8:12] == ["student", "kernel", "step", "n"]  # behind the eight of the verdict's table
    assert [name.replace(" ", "_") for name in heads[12:]] == list(plots.STATISTICS)
    assert len(page.all("tr")) == (1 + 3) + (1 + 15)
    sizes = {float(attrs["data-v"]) for attrs in page.all("th") if "data-v" in attrs}
    assert sizes == {0.0, 1.0, 2.0}
    shown = {float(attrs["data-v"]) for attrs in page.all("td") if "data-v" in attrs}
    last = frame[frame["step"] == 200]
    assert set(last["value"]) <= shown


def test_what_was_not_measured_is_said(frame, tmp_path):
    holed = frame[(frame["statistic"] != "snr") | (frame["kernel"] != "K=2")]
    page = Page(write_report(tmp_path / "r.html", holed).read_text(encoding="utf-8"))
    assert len([attrs for attrs in page.all("td") if attrs.get("title") == "not measured"]) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent.png", "figure 'A': the file .* does not exist or is empty"), ("a.pdf", "a.pdf is not one of .png, .svg")],
)
def test_a_bad_figure_is_named_and_nothing_is_written(frame, tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / "r.html", frame, figures={"A": tmp_path / name})
    with pytest.raises(ValueError, match="is empty"):
        write_report(tmp_path / "r.html", frame.iloc[:0])
    assert list(tmp_path.iterdir()) == []


def test_without_probes_the_page_says_so_and_shows_scores_and_samples(tmp_path):
    scores = pd.DataFrame({"student": [EVIL], "bleu": [12.5]})
    path = write_report(tmp_path / "r.html", None, tables={"Scores": scores}, samples=[{"text": EVIL}])
    page = Page(path.read_text(encoding="utf-8"))
    assert NO_PROBES in page.text() and "12.5" in page.text() and page.text().count(EVIL) == 2
    assert len(page.all("script")) == 1 and "Explore" not in page.text()
    assert path.stat().st_size < 50_000


def test_many_students_are_folded_and_cut_aloud(frame, tmp_path, monkeypatch):
    monkeypatch.setattr("kvar.report.page.by_run.MOST_ROWS", 50)
    one = frame[frame["student"] == "small"]
    many = pd.concat([one.assign(student=f"s{i:03}", parameters=1000 + i) for i in range(15)], ignore_index=True)
    page = Page(write_report(tmp_path / "r.html", many).read_text(encoding="utf-8"))
    assert "In words" in page.text() and "The 10 smallest of 15 students." in page.text()
    assert len(page.all("tr")) == (1 + 15) + (1 + 10 * 5)
    assert "smallest of" not in Page(write_report(tmp_path / "s.html", frame).read_text(encoding="utf-8")).text()


def test_settings_that_differ_come_first_and_all_are_there(tmp_path):
    configs = {EVIL: {"lr": 0.1, "model": {"d": 8, "name": EVIL}}, "b": {"lr": 0.2, "model": {"d": 8, "name": EVIL}}}
    page = Page(write_report(tmp_path / "r.html", None, configs=configs).read_text(encoding="utf-8"))
    plain = page.text()
    assert plain.index("Fields that differ between the 2 runs.") < plain.index("0.2") < plain.index("model.d")
    assert [data for tag, data in page.texts if tag == "button"] == ["run", "lr"]
    assert not page.all("img")
    assert differing_fields({"a": {}, "b": {"x": None}, "c": {"x": None}}) == ([], {"x": None})
    alone = Page(write_report(tmp_path / "s.html", None, configs={"a": {"lr": 0.1}}).read_text(encoding="utf-8"))
    assert "All fields" in alone.text() and not alone.all("button")
