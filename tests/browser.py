"""A headless browser over the DevTools protocol, which tells all that a page logs, throws or asks of a network."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
MISSING = ""
if BROWSER is None:
    MISSING = f"no browser: none of {', '.join(NAMES)} is on the PATH (Debian: apt-get install chromium)"
elif find_spec("websocket") is None:
    MISSING = "no websocket-client, which comes with JupyterLab: pip install 'kvar[notebooks]'"
needs_browser = pytest.mark.skipif(bool(MISSING) and not os.environ.get("KVAR_REQUIRE_BROWSER"), reason=MISSING)
"""Skips a test where there is no browser; with KVAR_REQUIRE_BROWSER set it fails there."""


class Tab:
    """One tab; ``complaints`` and ``requests`` fill as the page works."""

    def __init__(self, address: str) -> None:
        import websocket

        self.socket = websocket.create_connection(address, timeout=120, suppress_origin=True)
        self.number = 0
        self.loaded = False
        self.complaints: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv())
            self._note(answer.get("method", ""), answer.get("params", {}))
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(answer["error"])
                return dict(answer["result"])

    def _note(self, event: str, values: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.complaints.append(str(values["exceptionDetails"]))
        if event == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(values["args"]))
        if event == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.complaints.append(values["entry"]["text"])
        if event == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {values['message']}")
            self.socket.send(json.dumps({"id": 0, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}))
        if event == "Page.loadEventFired":
            self.loaded = True
        if event == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"][:200])

    def value(self, script: str) -> Any:
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", {}).get("description", "failed"))
        return found["result"].get("value")

    def until(self, script: str, seconds: float = 60) -> Any:
        """The first true value of a script."""
        end, last = time.monotonic() + seconds, None
        while time.monotonic() < end:
            last = self.value(script)
            if last:
                return last
            time.sleep(0.1)
        raise AssertionError(f"{script}: not within {seconds:.0f} s; last {last!r}")

    def open(self, path: Path, seconds: float = 60) -> None:
        """Open a file and wait until it is loaded, its scripts run."""
        self.complaints.clear()
        self.requests.clear()
        self.loaded = False
        end = time.monotonic() + seconds
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self.loaded:
            assert time.monotonic() < end, f"{path} did not load within {seconds:.0f} s"
            time.sleep(0.05)
            self.call("Page.getFrameTree")

    def resize(self, width: int, height: int = 1000, dark: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.value("new Promise(done => setTimeout(() => requestAnimationFrame(() => done(true)), 400))")

    def move(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        code = {"ArrowRight": 39, "ArrowLeft": 37, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """A tab of a fresh browser whose profile lies in a folder."""
    if MISSING:
        pytest.fail(f"KVAR_REQUIRE_BROWSER is set, and there is {MISSING}")
    port = free_port()
    command = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--window-size=1400,1000", f"--remote-debugging-port={port}", f"--user-data-dir={folder / 'profile'}",
        "about:blank",
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield Tab(_address(port))
        finally:
            ended(process)


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def ended(process: subprocess.Popen[bytes]) -> None:
    """End a process, at last by force."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(20)


def _address(port: int, seconds: float = 60) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            tabs = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=5))
            for tab in tabs:
                if tab["type"] == "page":
                    return str(tab["webSocketDebuggerUrl"])
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"no browser on port {port} within {seconds:.0f} s")
