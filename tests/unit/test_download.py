"""How an export is asked for, without a network."""

import io
from typing import Any, BinaryIO, cast

import httpx
import pytest

from sync.download import FetchError, HostHealth, download_repo
from sync.http import HttpClient, Reply

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"


class Web:
    """A PDS that says what it was asked for."""

    def __init__(self, status: int = 200, body: bytes = b"") -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._reply = Reply(status, httpx.Headers(), body)

    async def download(
        self, url: str, into: BinaryIO, *, params: dict[str, Any], **limits: float
    ) -> Reply:
        self.asked.append((url, params))
        into.write(b"car")
        return self._reply


async def fetch(web: Web) -> bytes:
    """Download one export."""
    file, http = io.BytesIO(), cast("HttpClient", web)
    limits = {"max_bytes": 10, "timeout_s": 1.0}
    await download_repo(
        http, "https://pds.test", DID, file, health=HostHealth(), **cast("Any", limits)
    )
    return file.getvalue()


@pytest.mark.rule("BF-19")
async def test_an_export_is_asked_for_whole() -> None:
    web = Web()
    assert await fetch(web) == b"car"
    assert web.asked == [("https://pds.test/xrpc/com.atproto.sync.getRepo", {"did": DID})]


@pytest.mark.rule("AC-13")
@pytest.mark.parametrize(
    ("status", "name", "reason", "told"),
    [
        (400, "RepoTakendown", "RepoTakendown", "takendown"),
        (400, "RepoSuspended", "RepoSuspended", "suspended"),
        (400, "RepoDeactivated", "RepoDeactivated", "deactivated"),
        (400, "RepoNotFound", "repo_not_found", None),
        (404, "", "repo_not_found", None),
        (403, "Forbidden", "refused", None),
    ],
)
async def test_only_some_refusals_tell_of_the_account(
    status: int, name: str, reason: str, told: str | None
) -> None:
    with pytest.raises(FetchError) as caught:
        await fetch(Web(status, b'{"error": "%s"}' % name.encode()))
    assert (caught.value.reason, caught.value.account_status) == (reason, told)
