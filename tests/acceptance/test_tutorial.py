"""The tutorial's commands do what it says: every block is run, every output compared.

A word after `sh` says how a block is meant: `setup` is done already here, `network`, `service` and
`program` run in terminals of their own, and `until` shows what will be so in a moment.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.postgres import chosen_binaries

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial" / "first-hour.md"
FIRST_PORT = 2600
PORTS = 5
TERMINALS = ("network", "service", "program")
TIMEOUT_S = 60.0
POLL_S = 0.3
END = "--- end of block"
# What differs from run to run.
VARIABLE = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"\b3[a-z2-7]{12}\b"), "REV"),
    (re.compile(r"\b1\.\d+\b"), "POSITION"),
    (re.compile(r"[─-]{2,}"), "-"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of commands, with the output that the page shows."""

    script: str
    mode: str
    expected: str | None


def free_ports() -> int:
    """Find the first of some free ports in a row."""
    for first in range(21_600, 31_600, 10):
        with ExitStack() as stack:
            try:
                for port in range(first, first + PORTS):
                    probe = stack.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise RuntimeError("no free ports")


def read_blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of commands in order."""
    fences = re.findall(r"^```(\w+) ?(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for (kind, mode, script), (next_kind, _, output) in zip(
        fences, [*fences[1:], ("", "", "")], strict=True
    ):
        if kind == "sh":
            yield Block(script, mode, output if next_kind == "text" else None)


def normal(output: str) -> str:
    """Return an output without what differs from run to run."""
    for pattern, word in VARIABLE:
        output = pattern.sub(word, output)
    return output.strip()


class Terminals:
    """The reader's terminals: one shell for the page, one process for each program."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self._programs: list[subprocess.Popen[str]] = []
        self._shell = self._start(["bash"], stdin=subprocess.PIPE)

    def run(self, script: str) -> tuple[int, str]:
        """Run a block in the shell; return its status and output."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f'{script}\necho "{END} $?"\n')
        self._shell.stdin.flush()
        lines: list[str] = []
        for line in self._shell.stdout:
            if line.startswith(END):
                return int(line.removeprefix(END)), "".join(lines)
            lines.append(line)
        raise RuntimeError("the shell ended")

    def open(self, script: str, *, is_network: bool) -> None:
        """Run a program in a terminal of its own; a network announces that it is there."""
        program = self._start(["bash", "-c", script])
        self._programs.append(program)
        assert program.stdout is not None
        if is_network:
            assert program.stdout.readline().startswith("{")

    def close(self) -> None:
        """End all programs, the newest first, as Ctrl-C in each terminal would."""
        for program in [*reversed(self._programs), self._shell]:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGTERM)
            program.communicate(timeout=TIMEOUT_S)

    def _start(self, command: list[str], *, stdin: int | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self._folder,
            env=self._environ,
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    """Open terminals in an empty folder, with the commands of this checkout."""
    programs = chosen_binaries().folder
    if shutil.which("curl") is None or not (programs / "psql").exists():
        pytest.skip("the tutorial needs curl, and psql beside the server")
    shims = tmp_path / "bin"
    shims.mkdir()
    for name, options in {"standpipe": "-m sync", "python": ""}.items():
        shim = shims / name
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" {options} "$@"\n')
        shim.chmod(0o755)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("STANDPIPE_", "PG"))}
    environ["PATH"] = f"{shims}:{programs}:{environ['PATH']}"
    environ |= {"PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "PSQLRC": os.devnull}
    folder = tmp_path / "first-hour"
    folder.mkdir()
    opened = Terminals(folder, environ)
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.slow
def test_every_command_of_the_tutorial_does_what_it_says(terminals: Terminals) -> None:
    first = free_ports()
    text = PAGE.read_text(encoding="utf-8")
    for number in range(PORTS):
        text = text.replace(str(FIRST_PORT + number), str(first + number))
    blocks = [block for block in read_blocks(text) if block.mode != "setup"]
    assert len(blocks) > 20
    for block in blocks:
        if block.mode in TERMINALS:
            terminals.open(block.script, is_network=block.mode == "network")
        else:
            check(terminals, block)


def check(terminals: Terminals, block: Block) -> None:
    """Run a block and compare what it prints, if need be until it is so."""
    deadline = time.monotonic() + (TIMEOUT_S if block.mode == "until" else 0)
    while True:
        status, output = terminals.run(block.script)
        is_good = status == 0 and "Error" not in output
        if is_good and block.expected in (None, output):
            return
        if is_good and normal(output) == normal(block.expected or ""):
            return
        if time.monotonic() >= deadline:
            assert output == block.expected, block.script
            pytest.fail(f"{block.script} ends with {status}: {output}")
        time.sleep(POLL_S)
