"""A script of Node that answers each line of JSON with one of its own."""

import base64
import json
import subprocess
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from tests.network.install import Install


class Conversation:
    """One process; safe to ask from several threads."""

    def __init__(self, install: Install, script: str, options: Sequence[str] = ()) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [install.node, install.scripts / script, *options],
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

    def put(self, question: dict[str, Any]) -> dict[str, Any]:
        """Put a question, in which bytes go as base64, and return the answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._lock:
            stdin.write(json.dumps(question, default=as_text) + "\n")
            stdin.flush()
            answer: dict[str, Any] = json.loads(stdout.readline())
        return answer


def as_text(value: bytes) -> str:
    """Write bytes as questions carry them."""
    return base64.b64encode(value).decode()
