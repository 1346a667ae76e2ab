"""A notebook in a real JupyterLab in a real browser: run all, move widgets, see the picture change."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jupyterlab", reason="needs the extra kvar[notebooks]")

import nbformat

from notebooks.run import notebooks, tidy, with_parameters
from tests.browser import Tab, browser, ended, free_port, needs_browser
from tests.notebooks.test_notebooks import SMALL

pytestmark = [pytest.mark.slow, needs_browser]

ERROR = "application/vnd.jupyter.error"
PICTURE = "document.querySelector('img.widget-image')"
DIGEST = f"""fetch({PICTURE}.src).then(r => r.arrayBuffer()).then(b => crypto.subtle.digest('SHA-1', b))
    .then(d => Array.from(new Uint8Array(d)).join(','))"""


def eventually(what: str, attempt: Any, seconds: float = 120) -> Any:
    """The first true value of ``attempt``, which may also fail until then."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            last = attempt()
        except (OSError, ValueError, RuntimeError) as error:
            last = error
        if last and not isinstance(last, Exception):
            return last
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {seconds:.0f} s; last seen {last!r}")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """JupyterLab on the loopback address, over a folder with the quick start on small settings, without outputs."""
    path = notebooks()[0]
    book = with_parameters(path, SMALL[path.stem])
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    (tmp_path / "work").mkdir()
    nbformat.write(tidy(book), tmp_path / "work" / "quick.ipynb")
    port, token = free_port(), "kvar"
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": tmp_path / "work",
        "IdentityProvider.token": token,
        "LabApp.expose_app_in_browser": True,
        "LabApp.news_url": None,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", *(f"--{k}={v}" for k, v in options.items())]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    own = {name: str(tmp_path / name.lower()) for name in folders}
    environment = os.environ | own | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    with (tmp_path / "lab.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            eventually("JupyterLab", lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=5).read())
            yield f"http://127.0.0.1:{port}/lab/tree/quick.ipynb?token={token}"
        finally:
            ended(process)


@pytest.fixture
def page(lab: str, tmp_path: Path) -> Iterator[Tab]:
    with browser(tmp_path / "browser") as tab:
        tab.call("Page.navigate", url=lab)
        yield tab


def test_widgets_move_the_picture_in_jupyterlab(page: Tab, tmp_path: Path) -> None:
    ready = "document.querySelectorAll('.jp-Notebook .jp-Cell').length > 10 && !!window.jupyterapp"
    eventually("the notebook", lambda: page.value(ready))
    kernel = "document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status"
    eventually("the kernel", lambda: page.value(kernel) == "idle")
    page.value("window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => true)")

    def shown() -> Any:
        failed = page.value(
            "document.querySelector('.jp-Notebook [data-mime-type=\"application/vnd.jupyter.error\"]')?.innerText"
        )
        assert not failed, failed
        page.value("document.querySelector('.jp-Notebook .jp-Cell:last-child')?.scrollIntoView(), true")
        return page.value(f"{PICTURE}?.naturalWidth > 300")

    eventually("the widgets", shown, 300)
    page.value(f"{PICTURE}.scrollIntoView(), true")
    caption = "Array.from(document.querySelectorAll('.widget-html-content')).map(e => e.textContent).join(' ')"

    def row(label: str) -> str:
        return (
            "Array.from(document.querySelectorAll('label.widget-label'))"
            f".find(e => e.textContent === '{label}').parentElement"
        )

    before, said = page.value(DIGEST), page.value(caption)
    assert "K=1" in said
    page.value(f"{row('K')}.querySelector('.noUi-handle').focus(), true")  # the K slider, by its keyboard
    page.press("ArrowRight")
    eventually("the slider of K", lambda: "K=2" in page.value(caption) and page.value(DIGEST) != before, 60)

    for label in ("statistic", "step", "kernels"):
        before = page.value(DIGEST)
        if label == "step":
            page.value(f"{row(label)}.querySelector('.noUi-handle').focus(), true")
            page.press("ArrowLeft")
        else:
            page.value(
                f"(() => {{ const s = {row(label)}.querySelector('select');"
                "s.options[0].selected = true; if (s.multiple) for (const o of s.options) o.selected = o.index < 2;"
                "else s.selectedIndex = 0; s.dispatchEvent(new Event('change', {bubbles: true})); return true })()"
            )
        eventually(label, lambda before=before: page.value(DIGEST) != before, 60)
    assert "trace of K=2" in page.value(caption) and "step 1" in page.value(caption)
