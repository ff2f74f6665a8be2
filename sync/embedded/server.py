"""Start, share and stop the embedded server.

Any number of processes may use one data folder: the first starts the server, the last stops it.
Each holds a shared lock on the file `users`, which the kernel takes away when a process dies,
however it dies; the server itself is a daemon that survives and is adopted by the next user.
"""

import fcntl
import os
import re
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from sync.embedded.account import Account, choose_account, readable_binaries
from sync.embedded.binaries import Binaries, find_binaries
from sync.embedded.cluster import DATABASE, LOGIN, DataFolder, make_cluster, write_private
from sync.embedded.extensions import extension_settings
from sync.embedded.processes import is_alive, postmaster, processes_in, remove_stale_pid_file
from sync.errors import DatabaseUnavailable

START_TIMEOUT_S = 300.0  # crash recovery replays up to max_wal_size
STOP_TIMEOUT_S = 60.0
LOCK_TIMEOUT_S = START_TIMEOUT_S + STOP_TIMEOUT_S
# After kill -9 of the postmaster its children need a moment to notice and leave.
ORPHANS_TIMEOUT_S = 15.0
POLL_S = 0.02
# What ends a server, and not only a login that comes too early.
_FATAL = re.compile(r"^.*(?:FATAL|PANIC):  (?!the database system is ).*$", re.MULTILINE)


class EmbeddedPostgres:
    """One process's share of the server in a data folder; a context manager giving its URL."""

    def __init__(
        self,
        data_dir: Path,
        *,
        binaries: Binaries | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = DataFolder(data_dir.resolve())
        self._binaries = binaries
        self._settings = dict(settings or {})
        self._users: int | None = None  # our descriptor of the `users` file while started

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def postmaster_pid(self) -> int | None:
        """Return the process id of the running server."""
        return postmaster(self._folder.cluster)

    def start(self) -> str:
        """Make sure that the server runs and return the URL of its non-superuser login."""
        if self._users is not None:
            raise RuntimeError("this EmbeddedPostgres is started already")
        account = choose_account(self._folder.root)
        self._folder.prepare()
        account.own(self._folder.root)
        with _Lock(self._folder.root / "lock", "the embedded server to start or stop"):
            url = self._probe() or self._launch(account)
            users = _open(self._folder.root / "users")
            fcntl.flock(users, fcntl.LOCK_SH)
            self._users = users
        return url

    def revive(self) -> None:
        """Start a server again that something killed, on its port; users keep their shares."""
        account = choose_account(self._folder.root)
        with _Lock(self._folder.root / "lock", "the embedded server to start or stop"):
            if self._probe() is None:
                self._launch(account)

    def stop(self) -> None:
        """Give up this process's share; the last user stops the server and waits for its end."""
        if self._users is None:
            return
        users, self._users = self._users, None
        try:
            with _Lock(self._folder.root / "lock", "the embedded server to start or stop"):
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return  # somebody else still uses it
                self._shut_down()
        finally:
            os.close(users)

    def _launch(self, account: Account) -> str:
        """Start the server, making the cluster first where there is none."""
        folder = self._folder
        major = folder.major()
        found = self._binaries or find_binaries(major=major)
        if major is not None and found.major != major:
            raise DatabaseUnavailable(
                f"The data folder {folder.root} was made by PostgreSQL {major} and cannot be "
                f"opened by {found.major}: install PostgreSQL {major}, or choose a new folder."
            )
        binaries = readable_binaries(found, account, folder.root)
        folder.log.mkdir(mode=0o700, exist_ok=True)
        account.own(folder.log)
        if major is None:
            make_cluster(folder, binaries, account, settings=self._settings)
        self._wait_for_orphans()
        command = [str(binaries.program("postgres")), "-D", str(folder.cluster)]
        chosen = _listening(folder.log) | extension_settings(folder, binaries, account)
        for name, value in chosen.items():
            command += ["-c", f"{name}={value}"]
        return self._await_start(account, command)

    def _await_start(self, account: Account, command: list[str]) -> str:
        """Start the daemon and wait until it takes our login.

        Try again while orphans linger, and when the port was free until somebody else took it.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        retry_deadline = time.monotonic() + ORPHANS_TIMEOUT_S
        self._folder.startup_log.unlink(missing_ok=True)
        port, pid = self._detach(account, command)
        while time.monotonic() < deadline:
            url = self._try(port)
            if url is not None:
                write_private(self._folder.port_file, str(port))
                return url
            if not is_alive(pid):
                said = self._last_words()
                lingering = "lock file" in said or "pre-existing shared memory" in said
                if not (lingering or _bindable(port) is None) or time.monotonic() > retry_deadline:
                    raise DatabaseUnavailable(f"The embedded PostgreSQL did not start: {said}")
                port, pid = self._detach(account, command)
            time.sleep(POLL_S)
        raise DatabaseUnavailable(
            f"The embedded PostgreSQL is still recovering after {START_TIMEOUT_S:.0f} s: see "
            f"{self._folder.log} and try again later."
        )

    def _detach(self, account: Account, command: list[str]) -> tuple[int, int]:
        """Start the daemon on a port that is free; return that and the process id."""
        port = self._choose_port()
        listening = [*command, "-c", f"port={port}"]
        return port, account.detach(listening, log=self._folder.startup_log)

    def _probe(self) -> str | None:
        """Return the URL of a server that runs already, waiting for one that recovers."""
        pid = postmaster(self._folder.cluster)
        port = self._last_port()
        deadline = time.monotonic() + START_TIMEOUT_S
        while pid is not None and port is not None and is_alive(pid):
            url = self._try(port)
            if url is not None:
                return url
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"An embedded PostgreSQL runs (process {pid}) but does not answer: see "
                    f"{self._folder.log}."
                )
            time.sleep(POLL_S)
        return None

    def _try(self, port: int) -> str | None:
        """Log in; both sides prove the password, so an answer can only be our own server."""
        password = self._folder.password()
        url = f"postgresql://{LOGIN}:{password}@127.0.0.1:{port}/{DATABASE}"
        try:
            psycopg.connect(url, connect_timeout=5, application_name="standpipe probe").close()
        except psycopg.OperationalError:
            return None
        return url

    def _wait_for_orphans(self) -> None:
        """Let the children of a killed postmaster leave, then drop a pid file that misleads."""
        deadline = time.monotonic() + ORPHANS_TIMEOUT_S
        while processes_in(self._folder.cluster) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        remove_stale_pid_file(self._folder.cluster)

    def _last_port(self) -> int | None:
        """Return the port of the running server, or else the one used last."""
        try:
            lines = (self._folder.cluster / "postmaster.pid").read_text("utf-8").splitlines()
            return int(lines[3])
        except (FileNotFoundError, IndexError, ValueError):
            pass
        try:
            return int(self._folder.port_file.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None

    def _choose_port(self) -> int:
        """Return the port used last if it is free, else any free one."""
        port = _bindable(self._last_port() or 0) or _bindable(0)
        if port is not None:
            return port
        raise DatabaseUnavailable("No port on 127.0.0.1 is free for the embedded PostgreSQL.")

    def _shut_down(self) -> None:
        """Stop the server the fast way: end the sessions, write a checkpoint, leave."""
        pid = postmaster(self._folder.cluster)
        if pid is None:
            return
        for number in (signal.SIGINT, signal.SIGQUIT):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while time.monotonic() < deadline:
                if not is_alive(pid):
                    return
                time.sleep(POLL_S)
        raise DatabaseUnavailable(f"The embedded PostgreSQL (process {pid}) does not stop.")

    def _last_words(self) -> str:
        """Return the line in which a server that died says why, before or in its log."""
        lines = _text(self._folder.startup_log).splitlines()
        fatal = [line for line in lines if "FATAL:" in line or "error" in line.lower()]
        if not fatal:
            logs = self._folder.log.glob("postgres-*.log")
            newest = max(logs, key=lambda log: log.stat().st_mtime, default=None)
            said = _text(newest).rpartition("starting PostgreSQL")[2] if newest else ""
            fatal = _FATAL.findall(said)[:1]
        return (fatal or lines or ["it gave no reason"])[-1].strip()


class _Lock:
    """An exclusive lock on a file, for the length of a `with`."""

    def __init__(self, path: Path, purpose: str) -> None:
        self._path, self._purpose = path, purpose
        self._descriptor = -1

    def __enter__(self) -> Self:
        self._descriptor = _open(self._path)
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return self
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(self._descriptor)
                    raise DatabaseUnavailable(
                        f"Another process has waited too long for {self._purpose}: "
                        f"find who holds {self._path}."
                    ) from None
                time.sleep(POLL_S)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _bindable(port: int) -> int | None:
    """Take a port, any for 0, and let it go again; None when somebody has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return None
        return int(probe.getsockname()[1])


def _listening(log: Path) -> dict[str, str]:
    """Return what no edit of postgresql.conf may change: where it listens and logs."""
    return {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "logging_collector": "on",
        "log_directory": str(log),
        "log_filename": "postgres-%a.log",
        "log_truncate_on_rotation": "on",
        "log_rotation_age": "1d",
        "log_rotation_size": "0",
    }
