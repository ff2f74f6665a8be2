"""A real browser without a window, driven by the protocol of its developer tools."""

import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.acceptance.commands import wait_until

NAMES = (
    "chromium", "chromium-browser", "chromium-headless-shell", "google-chrome",
    "google-chrome-stable",
)  # fmt: skip
# It looks nowhere but on this machine, whatever it would like to fetch for itself.
OPTIONS = (
    "--headless", "--no-sandbox", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-port=0", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)  # fmt: skip
ANSWER_TIMEOUT_S = 30.0
END_TIMEOUT_S = 30.0


def find_browser() -> str | None:
    """Return the path of a browser of the Chromium family, if this machine has one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page, and what the browser had to say about it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Have the browser do something; return its answer."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            told = json.loads(self._socket.recv(timeout=ANSWER_TIMEOUT_S))
            if told.get("id") == number:
                assert "error" not in told, told
                return dict(told["result"])
            self.events.append(told)

    def open(self, url: str) -> None:
        """Go to a page."""
        assert "errorText" not in self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """Return what an expression is in the page."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def told(self, method: str) -> list[dict[str, Any]]:
        """Return what has happened of one kind."""
        self.evaluate("0")
        return [event["params"] for event in self.events if event["method"] == method]


@contextmanager
def open_tab(program: str, folder: Path) -> Iterator[Tab]:
    """Start a browser with an empty profile, and open one page in it."""
    port_file = folder / "DevToolsActivePort"
    log = folder.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, *OPTIONS, f"--user-data-dir={folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def is_up() -> bool:
        assert process.poll() is None, log.read_text(errors="replace")
        return port_file.exists() and port_file.read_text().count("\n") > 0

    try:
        wait_until(is_up, "the browser answers")
        port = port_file.read_text().split("\n")[0]
        pages = httpx.get(f"http://127.0.0.1:{port}/json/list", trust_env=False).json()
        [url] = [page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"]
        with connect(url, max_size=None, proxy=None) as socket:
            yield Tab(socket)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(END_TIMEOUT_S)
