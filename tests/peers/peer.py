"""The reference implementation of repos as a process that answers questions (`peer.mjs`)."""

import base64
import json
import platform
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.network.install import ensure_installed, missing_tool

FOLDER = Path(__file__).parent


class PeerError(Exception):
    """The reference implementation refused what it was asked about."""


class Peer:
    """One process; it keeps the repo that `start` makes."""

    def __init__(self) -> None:
        install = ensure_installed(FOLDER)
        self._process = subprocess.Popen(
            [install.node, install.scripts / "peer.mjs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._process as process:
            process.kill()

    def ask(self, what: str, **details: Any) -> dict[str, Any]:
        """Return an answer, CARs in it as bytes; raises PeerError."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"ask": what, **details}, default=as_text) + "\n")
        stdin.flush()
        answer: dict[str, Any] = json.loads(stdout.readline())
        if "error" in answer:
            raise PeerError(answer["error"])
        if "car" in answer:
            answer["car"] = base64.b64decode(answer["car"])
        return answer


def as_text(value: bytes) -> str:
    """Write bytes as questions carry them."""
    return base64.b64encode(value).decode()


def missing_prerequisite() -> str | None:
    """Name what this machine lacks to ask the reference implementation, or return None."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"needs Linux x86-64, this is {sys.platform} {platform.machine()}"
    return missing_tool("node", "npm")
