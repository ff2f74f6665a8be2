"""Both oracles as processes that answer question after question."""

import json
import subprocess
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from tests.network.install import ensure_installed


class Oracle:
    """One oracle script; safe to ask from several threads."""

    def __init__(self, script: str, options: Sequence[str] = ()) -> None:
        install = ensure_installed()
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [install.node, install.scripts / script, "--stdin", *options],
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

    def ask(self, pds_url: str, did: str) -> dict[str, Any]:
        """Say what a repo holds; fails when its export does not verify."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._lock:
            stdin.write(json.dumps({"pds": pds_url, "did": did}) + "\n")
            stdin.flush()
            answer: dict[str, Any] = json.loads(stdout.readline())
        assert "error" not in answer, answer
        assert not answer.get("bad"), f"{did}: its export does not verify"
        return answer
