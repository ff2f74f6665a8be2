"""A tutorial in its reader's hands: its blocks of commands, and the terminals they are typed into.

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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tests.postgres import chosen_binaries

ROOT = Path(__file__).parents[2]
TERMINALS = ("network", "service", "program")
TIMEOUT_S = 60.0
POLL_S = 0.3
END = "--- end of block"
_KEPT: list[int] = []  # descriptors of sockets
# What differs from run to run.
VARIABLE = (
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(\+00:00)?"), "TIME"),
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


def free_ports(count: int) -> int:
    """Find the first of some free ports in a row, which no other call of this is given.

    They are taken much later. Until this process ends it keeps the last port of their ten: so
    nobody who looks for ports meanwhile, in another process of the tests, is given the same ones.
    """
    for first in range(21_600, 31_600, 10):
        with ExitStack() as stack:
            try:
                for port in (*range(first, first + count), first + 9):
                    probe = stack.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _KEPT.append(probe.detach())
            return first
    raise RuntimeError("no free ports")


def on_free_ports(page: Path, *ports: int) -> tuple[str, dict[int, int]]:
    """Return a page with free ports in the place of its own, and which is which."""
    first = free_ports(len(ports))
    ours = dict(zip(ports, range(first, first + len(ports)), strict=True))
    named = re.compile("|".join(rf"\b{port}\b" for port in ports))
    text = page.read_text(encoding="utf-8")
    return named.sub(lambda found: str(ours[int(found[0])]), text), ours


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
        self._shell = self._start(["bash"], output=subprocess.PIPE, stdin=subprocess.PIPE)

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

    def open(self, script: str, *, is_network: bool = False) -> None:
        """Run a program in a terminal of its own; a network announces that it is there.

        What the page's shell has exported so far is exported there, too.
        """
        self.run("export -p > exported")
        log = self._folder / f"terminal-{len(self._programs)}.log"
        with log.open("wb") as output:
            program = self._start(["bash", "-c", f". ./exported\n{script}"], output=output)
        self._programs.append(program)
        deadline = time.monotonic() + TIMEOUT_S
        while is_network and not log.read_text(encoding="utf-8").startswith("{"):
            assert program.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, f"{script} does not announce itself"
            time.sleep(POLL_S)

    def close(self) -> None:
        """End all programs, the newest first, as Ctrl-C in each terminal would."""
        for program in [*reversed(self._programs), self._shell]:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGTERM)
            program.communicate(timeout=TIMEOUT_S)
        if list(self._folder.glob("standpipe-data/**/postmaster.pid")):
            # Its users were killed: the next one stops it.
            adopt = self._start(["bash", "-c", "standpipe query 'select'"], output=subprocess.PIPE)
            adopt.communicate(timeout=TIMEOUT_S)

    def _start(
        self, command: list[str], *, output: int | IO[bytes], stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self._folder,
            env=self._environ,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@contextmanager
def opened_terminals(folder: Path) -> Iterator[Terminals]:
    """Open terminals in a new folder, with the commands of this checkout."""
    programs = chosen_binaries().folder
    if shutil.which("curl") is None or not (programs / "psql").exists():
        pytest.skip("the tutorial needs curl, and psql beside the server")
    shims = folder.parent / "bin"
    shims.mkdir()
    for name, options in {"standpipe": "-m sync", "python": ""}.items():
        shim = shims / name
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" {options} "$@"\n')
        shim.chmod(0o755)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("STANDPIPE_", "PG"))}
    environ["PATH"] = f"{shims}:{programs}:{environ['PATH']}"
    environ |= {"PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "PSQLRC": os.devnull}
    folder.mkdir(exist_ok=True)
    opened = Terminals(folder, environ)
    try:
        yield opened
    finally:
        opened.close()


def run_block(terminals: Terminals, block: Block) -> None:
    """Do with a block what its word says."""
    if block.mode in TERMINALS:
        terminals.open(block.script, is_network=block.mode == "network")
    elif block.mode != "setup":
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
            pytest.fail(
                f"{block.script}ends with status {status} and\n{output}instead of\n{block.expected}"
            )
        time.sleep(POLL_S)
