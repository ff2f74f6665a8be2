"""Drive the command line against a real network, and read what it stored."""

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cbor2
import psycopg

from tests.network.harness import Network

COMMAND = Path(sys.executable).with_name("standpipe")
COMMAND_TIMEOUT_S = 120
CONVERGE_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.1
LOG_TAIL_BYTES = 6000


class Service:
    """`standpipe run` on every PDS of a network: a context manager; the database outlives it.

    `sources` are other URLs to read, of the kind `kind`.
    """

    def __init__(
        self,
        network: Network,
        database_url: str,
        *,
        folder: Path,
        sources: Sequence[str] = (),
        kind: str = "pds",
        lanes: int | None = None,
    ) -> None:
        self._network = network
        self.kind = kind
        self.sources = tuple(sources) or tuple(host.url for host in network.pds)
        self._folder = folder
        self._log = folder / "service.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = service_environment(network, database_url, folder=folder)
        if lanes is not None:
            self._environment["STANDPIPE_LANES"] = str(lanes)
        self.database = psycopg.connect(database_url, autocommit=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.database.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def command(self, *arguments: str) -> str:
        """Run one command to its end and return what it printed; it must exit 0."""
        done = subprocess.run(
            [COMMAND, *arguments],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{arguments} exited {done.returncode}: {done.stderr[-3000:]}"
        return done.stdout

    def start(self) -> None:
        """Start `standpipe run` with its sources."""
        assert self._process is None
        sources = [part for url in self.sources for part in ("--source", url)]
        sources += ["--source-kind", self.kind]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [COMMAND, "run", *sources],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def ask_to_stop(self) -> None:
        """Ask the service to end, without waiting for it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Ask the service to end; it must drain and exit 0."""
        self.ask_to_stop()
        self.wait_for_end()

    def wait_for_end(self) -> None:
        """Wait until a service that was asked to has ended."""
        assert self._process is not None
        exit_code = self._process.wait(STOP_TIMEOUT_S)
        self._process = None
        assert exit_code == 0, f"exited {exit_code}\n{self._log_tail()}"

    def wait_until(self, is_reached: Callable[[], bool], what: Callable[[], object]) -> None:
        """Poll until a condition holds; say what was seen when it does not in time."""
        deadline = time.monotonic() + CONVERGE_TIMEOUT_S
        while not is_reached():
            running = self._process is not None and self._process.poll() is None
            assert running, f"the service ended by itself\n{self._log_tail()}"
            in_time = time.monotonic() < deadline
            assert in_time, f"not within {CONVERGE_TIMEOUT_S} s: {what()}\n{self._log_tail()}"
            time.sleep(POLL_INTERVAL_S)

    def wait_until_level(self, dids: Sequence[str]) -> None:
        """Wait until every repo is synchronized at the rev its PDS has now."""
        wanted = {did: latest_rev(self._network, did) for did in dids}

        def heads() -> dict[str, str]:
            rows = self.rows(
                "select r.did, h.rev from sync.repos r join sync.heads h using (repo_id)"
                " where r.sync_state = 'synchronized' and h.rev is not null"
            )
            return dict(rows)

        def is_level() -> bool:
            seen = heads()
            return all(seen.get(did) == rev for did, rev in wanted.items())

        def states() -> object:
            query = "select did, sync_state, is_active, attempts, error from sync.repos"
            return wanted, heads(), self.rows(query)

        self.wait_until(is_level, states)

    def wait_until_fetched(self, dids: Sequence[str]) -> None:
        """Wait until every repo was loaded, whatever has happened since."""
        query = (
            "select count(*) from sync.repo_status"
            " where did = any (%s) and synchronized_at is not null"
        )
        self.wait_until(
            lambda: self.rows(query, list(dids)) == [(len(dids),)],
            lambda: self.rows(query, list(dids)),
        )

    def forget_lookups(self) -> None:
        """Let every identity be as if it was looked up long ago: nobody asks twice a minute."""
        self.database.execute("update sync.repos set identity_checked_at = null")

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a query of a test."""
        return self.database.execute(query.encode(), parameters).fetchall()

    def records(self, did: str) -> list[dict[str, Any]]:
        """Return what apps see of a repo, in the form of an oracle's `records`."""
        rows = self.rows(
            "select collection, rkey, cid, value, raw, reason from sync.records"
            " where did = %s order by (collection || '/' || rkey) collate \"C\"",
            did,
        )
        return [
            {
                "collection": collection,
                "rkey": rkey,
                "cid": cid,
                "value": stored_value(cid, value, raw, reason),
            }
            for collection, rkey, cid, value, raw, reason in rows
        ]

    def changes(self, did: str, rkey: str) -> list[tuple[str, bool]]:
        """Return (kind, is_live) of every logged change of the records with a record key."""
        return [
            (kind, is_live)
            for kind, is_live in self.rows(
                "select kind, is_live from sync.change_log"
                " where did = %s and rkey = %s order by change_id",
                did,
                rkey,
            )
        ]

    def _log_tail(self) -> str:
        return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")


def service_environment(network: Network, database_url: str, *, folder: Path) -> dict[str, str]:
    """Return the environment that points a service at a network, and at nothing else."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("STANDPIPE_")
    }
    return inherited | {
        "STANDPIPE_DATABASE_URL": database_url,
        "STANDPIPE_DATA_DIR": str(folder / "data"),
        "STANDPIPE_RELAY_URL": network.pds[0].url,
        "STANDPIPE_RELAY_KIND": "pds",
        "STANDPIPE_PLC_URL": network.plc_url,
        "STANDPIPE_ALLOW_PRIVATE_HOSTS": "true",
        "STANDPIPE_HANDLE_BASE_URLS": ",".join(host.inner_url for host in network.pds),
    }


def latest_rev(network: Network, did: str) -> str:
    """Ask a PDS for the rev of a repo's head."""
    pds = network.account(did).pds
    rev: str = network.query(pds, "com.atproto.sync.getLatestCommit", did=did)["rev"]
    return rev


def assert_equals_both_oracles(
    service: Service, network: Network, did: str, *, is_tracked: Callable[[str], bool]
) -> None:
    """Check that the table holds what both oracles say of the tracked collections, and no more."""
    stored = service.records(did)
    for oracle in (network.oracle(did), network.oracle_atcute(did)):
        expected = [each for each in oracle["records"] if is_tracked(each["collection"])]
        assert expected, f"{did} has no tracked record: the comparison would prove nothing"
        assert keys_and_cids(stored) == keys_and_cids(expected)
        for ours, theirs in zip(stored, expected, strict=True):
            assert canonical(ours["value"]) == canonical(theirs["value"]), ours["rkey"]


def keys_and_cids(records: Iterable[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Return the identifying part of records."""
    return [(each["collection"], each["rkey"], each["cid"]) for each in records]


def canonical(value: Any) -> str:
    """Bring parsed JSON to one text: Python's == takes 1 for true."""
    return json.dumps(value, sort_keys=True)


def stored_value(cid: str, value: Any, raw: bytes | None, reason: str | None) -> Any:
    """Return a record's value, from its bytes where jsonb cannot hold it."""
    if raw is None:
        assert reason is None
        return value
    assert (value, reason) == (None, "nul")
    assert cid == format_cid(b"\x01\x71\x12\x20" + hashlib.sha256(raw).digest())
    return to_json(cbor2.loads(raw))


def to_json(value: Any) -> Any:
    """Map decoded DAG-CBOR to atproto's JSON form, independently of the service's own code."""
    if isinstance(value, dict):
        return {key: to_json(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(member) for member in value]
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode().rstrip("=")}
    if isinstance(value, cbor2.CBORTag):
        assert value.tag == 42
        return {"$link": format_cid(value.value[1:])}
    return value


def format_cid(cid: bytes) -> str:
    """Write a CID in base32."""
    return "b" + base64.b32encode(cid).decode().lower().rstrip("=")
