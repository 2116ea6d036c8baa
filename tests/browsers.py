"""A headless Chromium for the tests of the explorer, driven through its DevTools over a websocket."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import websocket

VARIABLE = "ZEROSEARCH_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--hide-scrollbars", "--remote-debugging-port=0",
    "--disable-features=IsolateSandboxedIframes",  # a frame of the page is looked into as part of the page
)
_KEYS = {"ArrowDown": 40, "ArrowUp": 38, "ArrowLeft": 37, "ArrowRight": 39, "Escape": 27, "Tab": 9, "End": 35}


def find() -> str | None:
    """Return the path of a Chromium: the one that ZEROSEARCH_BROWSER names, or one on the path."""
    if named := os.environ.get(VARIABLE):
        return named
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One browser with one page.  Dialogs, requests and messages of the console are collected."""

    def __init__(self, program: str, folder: Path):
        self._process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        self._ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        port, path = self._address(folder / "DevToolsActivePort")
        self._socket = websocket.create_connection(f"ws://127.0.0.1:{port}{path}", suppress_origin=True, timeout=60)
        self._session = ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def _address(self, file: Path) -> list[str]:
        for _ in range(600):
            if file.is_file() and len(lines := file.read_text().split()) == 2:
                return lines
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        self._process.kill()
        raise RuntimeError(f"browser: expected its DevTools port in {file}, found none")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a DevTools method and return its result; events that come meanwhile are kept."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            found = json.loads(self._socket.recv())
            if found.get("id") == number:
                assert "error" not in found, (method, found["error"])
                return found["result"]
            self._note(found)

    def _note(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if event["method"] == "Page.javascriptDialogOpening":  # an open dialog would stop everything
            message = {"id": next(self._ids), "method": "Page.handleJavaScriptDialog", "params": {"accept": False}}
            self._socket.send(json.dumps(message | {"sessionId": self._session}))

    def open(self, page: Path) -> None:
        """Load a file and wait until the explorer is ready, or says why it is not."""
        self.events.clear()
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=page.resolve().as_uri())
        ready = "document.documentElement.dataset.readyMs || document.querySelector('#message:not([hidden])')?.textContent"
        self.wait(f"document.readyState === 'complete' && ({ready}) || ''")

    def wait(self, expression: str) -> Any:
        """Return the expression's value as soon as it is true."""
        for _ in range(600):
            if value := self.value(expression):
                return value
            time.sleep(0.05)
        raise AssertionError(f"browser: never true: {expression}")

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press keys one after the other, as a keyboard does."""
        for key in keys:
            text = {"text": key} if len(key) == 1 else {}
            code = _KEYS.get(key, 0)
            for kind in ("keyDown", "keyUp"):
                self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code,
                          **(text if kind == "keyDown" else {}))

    def resize(self, width: int, height: int) -> None:
        """Give the page another size."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme: str) -> None:
        """Make the reader prefer a ``light`` or ``dark`` page."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path: Path) -> None:
        """Write what is seen as a PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def pdf(self, path: Path) -> None:
        """Write what would be printed."""
        made = self.send("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(made["data"]))

    def named(self, *methods: str) -> list[dict[str, Any]]:
        """Return the parameters of the events of these names since the page was opened."""
        return [event["params"] for event in self.events if event["method"] in methods]

    def close(self) -> None:
        """End the browser."""
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
