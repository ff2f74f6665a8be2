"""A recording of a real PDS and its exports, judged offline: nothing of it is refused."""

import json
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.acceptance.commands import Standpipe, standpipe
from tests.network.content import NOTE, hard_content, note
from tests.network.harness import Account, Network, create_write, delete_write
from tests.unit.captures import write_capture

__all__ = ["standpipe"]

pytest_plugins = ["tests.network.fixtures"]
# The first test may have to install the network's packages.
pytestmark = [pytest.mark.real_pds, pytest.mark.timeout(1200)]


def record(network: Network, *, until: str) -> list[bytes]:
    """Read the first PDS's stream from its beginning, up to a commit that names a path."""
    url = network.pds[0].ws_url
    frames: list[bytes] = []
    nsid = "com.atproto.sync.subscribeRepos"
    with connect(f"{url}/xrpc/{nsid}?cursor=0", proxy=None, max_size=5_000_000) as stream:
        while not frames or until.encode() not in frames[-1]:
            frame = stream.recv(timeout=30)
            assert isinstance(frame, bytes)
            frames.append(frame)
    return frames


def write_documents(network: Network, folder: Path) -> str:
    """Write the DID documents of all accounts, one a line."""
    lines = [
        httpx.get(f"{network.plc_url}/{account.did}", trust_env=False).text
        for account in network.accounts
    ]
    (folder / "documents.json").write_text("\n".join(lines), encoding="utf-8")
    return "documents.json"


def write_much(network: Network, account: Account) -> None:
    """Make commits of every shape, the last of which names `inspect-end`."""
    link = network.create_record(account, NOTE, note("first"), rkey="inspect-a")["cid"]
    network.put_record(account, NOTE, note("second"), rkey="inspect-a")
    network.apply_writes(
        account,
        [
            create_write(NOTE, "inspect-hard", hard_content(link)),
            create_write(NOTE, "inspect-gone", note("never seen")),
            delete_write(NOTE, "inspect-gone"),
        ],
    )
    network.delete_record(account, NOTE, rkey="inspect-a")
    network.create_record(account, NOTE, note("last"), rkey="inspect-end")


def test_a_recording_of_a_real_pds_is_proven(
    network: Network, standpipe: Standpipe, tmp_path: Path
) -> None:
    account = network.accounts[0]
    write_much(network, account)
    frames = record(network, until=f"{NOTE}/inspect-end")
    (tmp_path / "frames.bin").write_bytes(write_capture(frames))
    documents = write_documents(network, tmp_path)
    result = standpipe("inspect", "frames.bin", "--did-documents", documents, "--json")
    lines = result.json_lines()
    assert result.code == 0, [line for line in lines if line["rule"]]
    assert {line["verdict"] for line in lines} == {"ok", "ok-unchained", "stale", "noted"}
    mine = [line for line in lines if line["did"] == account.did and line["kind"] == "#commit"]
    assert [line["verdict"] for line in mine[1:]] == ["ok"] * (len(mine) - 1)
    told = [(op["action"], op["path"], op["record"]) for op in mine[-1]["ops"]]
    assert told == [("create", f"{NOTE}/inspect-end", note("last"))]


def test_an_export_of_a_real_pds_is_proven_by_its_document_alone(
    network: Network, standpipe: Standpipe, tmp_path: Path
) -> None:
    account = network.accounts[0]
    export = network.download(account.pds, "com.atproto.sync.getRepo", did=account.did)
    (tmp_path / "repo.car").write_bytes(export)
    documents = write_documents(network, tmp_path)
    result = standpipe("inspect", "repo.car", "--did-documents", documents, "--json")
    assert result.code == 0, result.out
    assert json.loads(result.out)["records"] == len(network.oracle(account.did)["records"])
