"""Run a real PLC directory and real PDSes on loopback, and ask two oracles what they hold."""

import base64
import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Literal, Self

import httpx

from tests.network.install import Install, NetworkStartError, ensure_installed

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 120.0
ORACLE_TIMEOUT_S = 120.0
# Two networks that start at once may pick the same port.
START_ATTEMPTS = 3

DidDocumentForm = Literal["raw", "multikey"]
Write = dict[str, Any]


class XrpcError(Exception):
    """A PDS or the control port refused a call; the text holds its answer."""


@dataclass(frozen=True, slots=True)
class PdsHost:
    """One PDS: where it listens and how its administrator logs in.

    `url` is what it calls itself; it listens at `inner_url`, another one if somebody else stands
    in front of it.
    """

    url: str
    inner_url: str
    ws_url: str
    did: str
    admin_password: str


@dataclass(frozen=True, slots=True)
class Account:
    """One account; `pds` is the index of its host in `Network.pds`."""

    did: str
    handle: str
    pds: int
    password: str
    access_token: str


class Network:
    """A running network; a context manager that stops it.

    Everything listens on 127.0.0.1 at free ports and forgets its data at the end. The network also
    ends when this process does, however that happens: it reads a pipe that only we hold open.
    """

    def __init__(self, child: "_Child", description: dict[str, Any], *, install: Install) -> None:
        self._child = child
        self._install = install
        self._client = httpx.Client(timeout=CALL_TIMEOUT_S, trust_env=False)
        self._control_url: str = description["control"]
        self.pid: int = description["pid"]
        self.plc_url: str = description["plc"]["url"]
        self.pds = tuple(
            PdsHost(
                url=host["url"],
                inner_url=host["inner"],
                ws_url=host["ws"],
                did=host["did"],
                admin_password=host["adminPassword"],
            )
            for host in description["pds"]
        )
        self.accounts = tuple(
            Account(
                did=account["did"],
                handle=account["handle"],
                pds=account["pds"],
                password=account["password"],
                access_token=account["accessJwt"],
            )
            for account in description["accounts"]
        )

    @classmethod
    def start(
        cls,
        *,
        pds: int = 2,
        accounts: int = 2,
        records: int = 3,
        did_doc: DidDocumentForm = "raw",
        backfill_ms: int | None = None,
        options: Sequence[str] = (),
    ) -> Self:
        """Start `pds` hosts with `accounts` each and `records` per account; install if needed.

        `options` are more of network.mjs: `--fronted`, `--max-buffer`.
        """
        install = ensure_installed()
        arguments = ["--pds", pds, "--accounts", accounts, "--records", records]
        arguments += ["--did-doc", did_doc, *options]
        if backfill_ms is not None:
            arguments += ["--backfill-ms", backfill_ms]
        for attempt in range(1, START_ATTEMPTS + 1):
            child = _Child(install, [str(argument) for argument in arguments])
            try:
                return cls(child, child.read_description(), install=install)
            except NetworkStartError as error:
                child.stop()
                if "EADDRINUSE" not in str(error) or attempt == START_ATTEMPTS:
                    raise
            except BaseException:
                child.stop()
                raise
        raise AssertionError("the last attempt returns or raises")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """Stop the servers, remove their data and return the exit code; may be called twice."""
        self._client.close()
        return self._child.stop()

    def query(self, pds: int, nsid: str, *, token: str | None = None, **parameters: str) -> Any:
        """Call a query (GET) of a PDS and return its JSON."""
        return _answer(self._get(pds, nsid, token=token, parameters=parameters), nsid)

    def download(self, pds: int, nsid: str, **parameters: str) -> bytes:
        """Call a query of a PDS that answers with bytes."""
        response = self._get(pds, nsid, token=None, parameters=parameters)
        if response.is_error:
            raise XrpcError(f"{nsid} {response.status_code}: {response.text[:1000]}")
        return response.content

    def _get(
        self, pds: int, nsid: str, *, token: str | None, parameters: dict[str, str]
    ) -> httpx.Response:
        url = f"{self.pds[pds].inner_url}/xrpc/{nsid}"
        return self._client.get(url, params=parameters, headers=_authorization(token))

    def xrpc(self, pds: int, nsid: str, body: Any = None, token: str | None = None) -> Any:
        """Call a procedure (POST) of a PDS and return its JSON, or None for an empty answer."""
        # Some procedures take no input and refuse a content type without one.
        content = None if body is None else json.dumps(body).encode()
        return self.upload(pds, nsid, content, token=token, content_type="application/json")

    def upload(
        self, pds: int, nsid: str, content: bytes | None, *, token: str | None, content_type: str
    ) -> Any:
        """Call a procedure of a PDS with a body of its own kind and return its JSON."""
        url = f"{self.pds[pds].inner_url}/xrpc/{nsid}"
        headers = _authorization(token)
        if content is not None:
            headers["content-type"] = content_type
        return _answer(self._client.post(url, content=content, headers=headers), nsid)

    def admin_token(self, pds: int) -> str:
        """Return what authorizes an administrator's calls."""
        login = f"admin:{self.pds[pds].admin_password}".encode()
        return f"Basic {base64.b64encode(login).decode()}"

    def create_record(
        self, account: Account, collection: str, record: Any, *, rkey: str | None = None
    ) -> Any:
        """Create a record and return the PDS's answer (`uri`, `cid`, `commit`)."""
        body = {"repo": account.did, "collection": collection, "record": record}
        if rkey is not None:
            body["rkey"] = rkey
        return self._write(account, "com.atproto.repo.createRecord", body)

    def put_record(self, account: Account, collection: str, record: Any, *, rkey: str) -> Any:
        """Create or replace a record."""
        body = {"repo": account.did, "collection": collection, "rkey": rkey, "record": record}
        return self._write(account, "com.atproto.repo.putRecord", body)

    def delete_record(self, account: Account, collection: str, *, rkey: str) -> Any:
        """Delete a record; one that is absent is no error and no event."""
        body = {"repo": account.did, "collection": collection, "rkey": rkey}
        return self._write(account, "com.atproto.repo.deleteRecord", body)

    def apply_writes(self, account: Account, writes: Sequence[Write]) -> Any:
        """Make one commit of up to 200 writes; see create_write, update_write, delete_write."""
        body = {"repo": account.did, "writes": list(writes)}
        return self._write(account, "com.atproto.repo.applyWrites", body)

    def control(self, op: str, **arguments: Any) -> Any:
        """Do what XRPC cannot: stop or start a PDS, shorten the window, rotate a key, emit."""
        body = json.dumps({"op": op, **arguments}).encode()
        return _answer(self._client.post(self._control_url, content=body), f"control {op}")

    def oracle(self, did: str) -> dict[str, Any]:
        """Say what a repo holds by @atproto/repo, CIDs, tree and signature verified.

        The answer has `rev`, `head`, `data`, `count` and `records`, each with `collection`, `rkey`,
        `cid` and `value` (parsed JSON), sorted by path.
        """
        return self._ask("oracle.mjs", did, ["--plc", self.plc_url])

    def oracle_atcute(self, did: str) -> dict[str, Any]:
        """Say what a repo holds by @atcute/repo, an unrelated code base: `count`, `records`."""
        return self._ask("oracle_atcute.mjs", did, [])

    def account(self, did: str) -> Account:
        """Return the account of a DID."""
        return next(account for account in self.accounts if account.did == did)

    def _write(self, account: Account, nsid: str, body: dict[str, Any]) -> Any:
        return self.xrpc(account.pds, nsid, body, account.access_token)

    def _ask(self, script: str, did: str, options: list[str]) -> dict[str, Any]:
        host = self.pds[self.account(did).pds]
        answer = subprocess.run(
            [
                self._install.node,
                self._install.scripts / script,
                *("--pds", host.inner_url, "--did", did),
                *options,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ORACLE_TIMEOUT_S,
            check=False,
        )
        if answer.returncode != 0:
            text = (answer.stdout[-1000:] + answer.stderr[-2000:]).decode(errors="replace")
            raise AssertionError(f"{script} {did} exited {answer.returncode}: {text}")
        parsed: dict[str, Any] = json.loads(answer.stdout)
        return parsed


def create_write(collection: str, rkey: str, value: Any) -> Write:
    """Describe a create for apply_writes."""
    return _write_of("create", collection, rkey) | {"value": value}


def update_write(collection: str, rkey: str, value: Any) -> Write:
    """Describe an update for apply_writes."""
    return _write_of("update", collection, rkey) | {"value": value}


def delete_write(collection: str, rkey: str) -> Write:
    """Describe a delete for apply_writes."""
    return _write_of("delete", collection, rkey)


class _Child:
    """The node process: started with a pipe as stdin, stopped by SIGTERM, killed when it hangs."""

    def __init__(self, install: Install, arguments: list[str]) -> None:
        # A file, not a pipe: nobody reads it while the network runs, and a full pipe would block.
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by stop()
        script = install.scripts / "network.mjs"
        self._process = subprocess.Popen(
            [install.node, script, "--until-stdin-closes", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )

    def read_description(self) -> dict[str, Any]:
        """Wait for the line that tells the URLs and accounts."""
        deadline = time.monotonic() + START_TIMEOUT_S
        stdout = self._process.stdout
        assert stdout is not None
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise self._unavailable(f"did not start within {START_TIMEOUT_S} s")
                chunk = os.read(stdout.fileno(), 65536)
                if not chunk:
                    raise self._unavailable("ended while starting")
                line += chunk
        description: dict[str, Any] = json.loads(line)
        return description

    def stop(self) -> int:
        """End the process and return its exit code."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stream in (process.stdin, process.stdout, self._errors):
            stream.close()
        return process.returncode

    def _unavailable(self, what: str) -> NetworkStartError:
        self._errors.seek(0)
        text = self._errors.read()[-3000:].decode(errors="replace")
        return NetworkStartError(f"network.mjs {what}:\n{text}")


def _write_of(action: str, collection: str, rkey: str) -> Write:
    kind = f"com.atproto.repo.applyWrites#{action}"
    return {"$type": kind, "collection": collection, "rkey": rkey}


def _authorization(token: str | None) -> dict[str, str]:
    if token is None:
        return {}
    return {"authorization": token if token.startswith("Basic ") else f"Bearer {token}"}


def _answer(response: httpx.Response, what: str) -> Any:
    if response.is_error:
        raise XrpcError(f"{what} {response.status_code}: {response.text[:1000]}")
    return response.json() if response.content else None
