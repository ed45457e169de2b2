"""A headless Chromium for tests of pages, driven over a pipe by the DevTools protocol.

It reaches no network, keeps nothing, and ends with the test that began it.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""Where Chromium is; None where it is not installed."""
PATIENCE = 120.0
"""Seconds without a word after which the browser is taken for dead; no test depends on it."""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--proxy-server=127.0.0.1:9",  # nobody listens there: whatever asks for a network gets none
    "--remote-debugging-pipe",
)


class Browser:
    """One browser with one page."""

    def __init__(self, folder: Path) -> None:
        assert PROGRAM is not None
        ours, theirs = os.pipe(), os.pipe()  # commands go into the first, answers come out of the second
        given, taken = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (ours[0], theirs[1]))  # not 3 or 4 by chance
        command = f'exec "$@" 3<&{given} 4>&{taken} {given}<&- {taken}>&-'
        self.process = subprocess.Popen(
            ["bash", "-c", command, "browser", PROGRAM, *FLAGS, f"--user-data-dir={folder}"],
            pass_fds=(given, taken),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (ours[0], theirs[1], given, taken):
            os.close(end)
        self.commands, self.answers = ours[1], theirs[0]
        self.buffer = b""
        self.number = 0
        self.session: str | None = None
        self.complaints: list[str] = []
        """What the page wrote on its console, what it threw, and what it was refused."""
        self.requests: list[str] = []
        """Every address asked for."""

    def __enter__(self) -> Self:
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.session = None
        with suppress(OSError, EOFError):
            self.ask("Browser.close")
        os.close(self.commands)
        os.close(self.answers)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its answer; events that come before it are noted."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.commands, data) :]
        while True:
            answer = self._read()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])
            self._note(answer)

    def open(self, path: Path) -> None:
        """Go to a page on disk, and wait until it is loaded."""
        self.ask("Page.navigate", url=path.as_uri())
        while self.run("document.readyState") != "complete" or self.run("location.protocol") != "file:":
            pass
        self.run("new Promise(done => setTimeout(() => requestAnimationFrame(() => setTimeout(done))))")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def press(self, key: str, text: str = "") -> None:
        """One key, down and up."""
        code = {"Tab": 9, "Enter": 13}.get(key, ord(key[0].upper()))
        shared = {"key": key, "windowsVirtualKeyCode": code}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text=text or {"Enter": "\r"}.get(key, ""), **shared)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **shared)

    def scheme(self, name: str) -> None:
        """Prefer `light` or `dark`."""
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def picture(self, path: Path, width: int = 1400, height: int = 1000) -> None:
        """Take a screenshot."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        path.write_bytes(b64decode(self.ask("Page.captureScreenshot")["data"]))

    def busy(self) -> float:
        """Seconds of processor time that the page's thread has used."""
        figures = self.ask("Performance.getMetrics")["metrics"]
        return float(next(f["value"] for f in figures if f["name"] == "TaskDuration"))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            if not select.select([self.answers], [], [], PATIENCE)[0]:
                raise EOFError("the browser says nothing any more")
            data = os.read(self.answers, 1 << 20)
            if not data:
                raise EOFError("the browser is gone")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\0")
        return dict(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        given = event.get("params", {})
        match event.get("method"):
            case "Runtime.consoleAPICalled":
                self.complaints.append(f"console.{given['type']}: {given['args']}")
            case "Runtime.exceptionThrown":
                self.complaints.append(str(given["exceptionDetails"]))
            case "Log.entryAdded":
                self.complaints.append(given["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(given["request"]["url"])


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser that keeps its things in a folder of its own."""
    with Browser(folder) as begun:
        yield begun
