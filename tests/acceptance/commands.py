"""Run the command line from tests: in this process, or as the program a user starts."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from sync.cli.app import run_command

PROGRAM = Path(sys.executable).with_name("standpipe")
COMMAND_TIMEOUT_S = 120.0
START_TIMEOUT_S = 60.0
CONTROL_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    def assert_one_sentence(self, code: int, *parts: str) -> None:
        """Check that it ended with one sentence for the user and nothing else."""
        assert self.code == code, self
        assert "Traceback" not in self.err, self.err
        assert self.err.startswith("Error: "), self.err
        assert len(self.err.strip().splitlines()) == 1, self.err
        for part in parts:
            assert part in self.err, self.err


Standpipe = Callable[..., Result]


@pytest.fixture
def standpipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Standpipe]:
    """Return a function that runs a command in this process, in an empty folder."""
    for name in list(os.environ):
        if name.startswith("STANDPIPE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level

    def run(*arguments: str, **environment: str) -> Result:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            code = run_command([str(each) for each in arguments])
        told = capsys.readouterr()
        return Result(code, told.out, told.err)

    yield run
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def on_clone(standpipe: Standpipe, clone: str) -> Standpipe:
    """Return a function that runs a command on a database of its own."""

    def run(*arguments: str, **environment: str) -> Result:
        return standpipe(*arguments, STANDPIPE_DATABASE_URL=clone, **environment)

    return run


@pytest.fixture
def on_network(standpipe: Standpipe, network: "RemoteSimnet", clone: str) -> Standpipe:
    """Return a function that runs a command on a module's network and a database of its own."""

    def run(*arguments: str, **environment: str) -> Result:
        return standpipe(*arguments, **{**network.environment(clone), **environment})

    return run


def clean_environment(**environment: str) -> dict[str, str]:
    """Return our environment without settings, but for the given ones."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("STANDPIPE_")}
    return inherited | environment


def run_program(
    *arguments: str, folder: Path, environment: Mapping[str, str] | None = None
) -> Result:
    """Run the installed program to its end."""
    done = subprocess.run(
        [PROGRAM, *arguments],
        cwd=folder,
        env=clean_environment(**(environment or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@contextmanager
def started_program(
    *arguments: str, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start the installed program; it is killed at the end if it still runs."""
    with (folder / "program.log").open("ab") as errors:
        process = subprocess.Popen(
            [PROGRAM, *arguments],
            cwd=folder,
            env=clean_environment(**(environment or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def read_line(process: subprocess.Popen[str]) -> str:
    """Return the next line of a program, which is killed if it prints none in time."""
    assert process.stdout is not None
    # Not by select(): the line may have come together with the one before, and is in our buffer.
    patience = threading.Timer(START_TIMEOUT_S, process.kill)
    patience.start()
    try:
        line = process.stdout.readline()
    finally:
        patience.cancel()
    assert line, "the program printed nothing"
    return line


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    """Send a signal and return the exit code."""
    process.send_signal(number)
    return process.wait(START_TIMEOUT_S)


def wait_until(is_reached: Callable[[], object], what: str, *, timeout_s: float = 60.0) -> None:
    """Poll for something another process does."""
    deadline = time.monotonic() + timeout_s
    while not is_reached():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


class RemoteSimnet:
    """A simulated network in a process of its own, and its control port."""

    def __init__(self, described: dict[str, Any]) -> None:
        self.described = described
        self.pds_urls: list[str] = described["pds"]
        self.accounts: list[dict[str, Any]] = described["accounts"]
        self._http = httpx.Client(timeout=CONTROL_TIMEOUT_S, trust_env=False)

    @property
    def dids(self) -> list[str]:
        return [account["did"] for account in self.accounts]

    def control(self, op: str, **arguments: Any) -> Any:
        """Have the network do something."""
        answer = self._http.post(self.described["control"], json={"op": op, **arguments})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def export(self, did: str) -> bytes:
        """Return a repo's CAR file."""
        pds = next(account["pds"] for account in self.accounts if account["did"] == did)
        url = f"{self.pds_urls[pds]}/xrpc/com.atproto.sync.getRepo"
        return self._http.get(url, params={"did": did}).raise_for_status().content

    def environment(self, database_url: str) -> dict[str, str]:
        """Return the settings that point a service at this network and nothing else."""
        return {
            "STANDPIPE_DATABASE_URL": database_url,
            "STANDPIPE_RELAY_URL": self.described["relay_http"],
            "STANDPIPE_PLC_URL": self.described["plc"],
            "STANDPIPE_HANDLE_BASE_URLS": ",".join(self.pds_urls),
            "STANDPIPE_ALLOW_PRIVATE_HOSTS": "true",
        }

    def close(self) -> None:
        self._http.close()


@contextmanager
def remote_simnet(folder: Path, *arguments: str) -> Iterator[RemoteSimnet]:
    """Serve a simulated network with the program's own command."""
    with started_program("simnet", *arguments, folder=folder) as process:
        network = RemoteSimnet(json.loads(read_line(process)))
        try:
            yield network
        finally:
            network.close()
