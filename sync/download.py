"""Download a repo export into a bounded file, and tell the reasons for a failure apart."""

from datetime import UTC, datetime, timedelta
from typing import BinaryIO

import httpx

from sync.http import HttpClient, HttpFailure, Reply, retry_after_s
from sync.limits import BoundedMap

MAX_PARK_S = 3600.0
REMEMBERED_HOSTS = 10_000
BUSY_PARK_S = 60.0  # a 429 that does not say for how long
FIRST_PARK_S, LONGEST_FAILURE_PARK_S = 1.0, 300.0

# What a PDS calls an account it does not serve (AC-13). RepoNotFound is not among them: it may
# be a migration or a fresh host, and deletes nothing.
_ACCOUNT_STATUS = {
    "RepoTakendown": "takendown",
    "RepoSuspended": "suspended",
    "RepoDeactivated": "deactivated",
}


class FetchError(Exception):
    """A fetch that ended without an export, as `sync.fail_fetch()` wants it told."""

    def __init__(
        self,
        reason: str,
        detail: str = "",
        *,
        account_status: str | None = None,
        park_s: float | None = None,
    ) -> None:
        self.reason = reason
        self.detail = detail
        self.account_status = account_status
        self.park_s = park_s  # the host is left alone for this long
        super().__init__(f"{reason}: {detail}" if detail else reason)

    def host_ready_at(self) -> datetime | None:
        """Return when the host may be asked again, if it has to be left alone."""
        return None if self.park_s is None else datetime.now(UTC) + timedelta(seconds=self.park_s)


class HostHealth:
    """Failures in a row of each host, so that a dead one costs less and less (BF-16)."""

    def __init__(self) -> None:
        self._failures: BoundedMap[str, int] = BoundedMap(REMEMBERED_HOSTS)

    def note_success(self, host: str) -> None:
        """Forget the failures of a host that answers."""
        self._failures.pop(host, None)

    def next_park_s(self, host: str) -> float:
        """Return how long to leave a host alone that failed once more."""
        failures = self._failures.get(host, 0)
        self._failures[host] = failures + 1
        return float(min(LONGEST_FAILURE_PARK_S, FIRST_PARK_S * 2.0 ** min(failures, 16)))


async def download_repo(
    http: HttpClient,
    pds_url: str,
    did: str,
    file: BinaryIO,
    *,
    max_bytes: int,
    timeout_s: float,
    health: HostHealth,
) -> None:
    """Write the account's full export into a file; raises `FetchError`."""
    try:
        reply = await http.download(
            f"{pds_url}/xrpc/com.atproto.sync.getRepo",
            file,
            params={"did": did},
            max_bytes=max_bytes,
            timeout_s=timeout_s,
        )
    except HttpFailure as error:
        is_host_down = error.reason == "unreachable"
        park_s = health.next_park_s(pds_url) if is_host_down else None
        raise FetchError(error.reason, str(error), park_s=park_s) from error
    if reply.status != httpx.codes.OK:
        raise _explain(reply, pds_url, health)
    health.note_success(pds_url)


def _explain(reply: Reply, pds_url: str, health: HostHealth) -> FetchError:
    """Turn an answer without an export into what it means for the repo and its host."""
    name = reply.error_name()
    wait_s = retry_after_s(reply.headers, now=datetime.now(UTC), cap_s=MAX_PARK_S)
    if name in _ACCOUNT_STATUS:
        return FetchError(name, account_status=_ACCOUNT_STATUS[name])
    detail = f"status {reply.status} {name}".strip()
    if reply.status == httpx.codes.TOO_MANY_REQUESTS:
        return FetchError("rate_limited", detail, park_s=wait_s or BUSY_PARK_S)
    if reply.status >= 500:
        return FetchError("server_error", detail, park_s=wait_s or health.next_park_s(pds_url))
    if name == "RepoNotFound" or reply.status == httpx.codes.NOT_FOUND:
        return FetchError("repo_not_found", detail)
    return FetchError("refused", detail, park_s=wait_s)
