"""Judge one message of the stream: stage it, refuse it, or ask who signs for the repo first.

Nothing of a commit is used before its signature is good, and the signature only counts with the
key of the account's current DID document (SG-08, SG-14). A message whose signer is not known
here, or whose signature fails, is handed back once so that the identity can be looked up again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from sync import log
from sync.atproto.frame import (
    AccountMessage,
    CommitMessage,
    IdentityMessage,
    SyncMessage,
    UnknownMessage,
)
from sync.atproto.keys import PublicKey
from sync.atproto.verify import verify_commit, verify_sync
from sync.errors import BadSignature, BrokenCommit, ProtocolError
from sync.problems import ProblemLog
from sync.staging import (
    StagedEvent,
    stage_account,
    stage_commit,
    stage_identity,
    stage_sync,
)
from sync.tracking import TrackedRepos

Signed = CommitMessage | SyncMessage
Judged = Signed | AccountMessage | IdentityMessage
Doubt = Literal["bad_signature", "no_key", "wrong_host"]

_DEFAULT_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}
_log = log.get("triage")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that cannot be judged with what is known about its repo's identity."""

    message: Signed
    doubt: Doubt
    detail: str = ""


def now_us() -> int:
    """Return the wall clock as revs have it."""
    return time.time_ns() // 1_000


class Triage:
    """Judge the messages of one source."""

    def __init__(
        self,
        repos: TrackedRepos,
        *,
        url: str,
        is_pds: bool,
        problems: ProblemLog,
        clock_us: Callable[[], int] = now_us,
    ) -> None:
        self._repos = repos
        self._host = host_of(url)
        self._is_pds = is_pds
        self._problems = problems
        self._clock_us = clock_us

    def judge(self, message: Judged | UnknownMessage) -> StagedEvent | Waiting | None:
        """Return the event to stage, or what has to be found out first, or nothing to do."""
        if isinstance(message, UnknownMessage):
            self.refuse("unknown_message", detail=message.kind)
            return None
        if isinstance(message, IdentityMessage):
            # The key may be another one now: ask again before the next commit.
            self._repos.forget_signer(message.did)
            return stage_identity(message)
        if isinstance(message, AccountMessage):
            # Whether its word counts is decided where the account's present host is known.
            return stage_account(message, host=self._host if self._is_pds else None)
        signer = self._repos.signer(message.did)
        # Only the account's own PDS speaks for it; a relay forwards for everybody (D-12).
        if self._is_pds and host_of(signer.pds_url or "") != self._host:
            return Waiting(message, "wrong_host", signer.pds_url or "no PDS known")
        key = signer.key()
        if key is None:
            return Waiting(message, "no_key")
        return self._verify(message, key)

    def give_up(self, waiting: Waiting) -> StagedEvent:
        """Refuse a message that fails with the latest identity there is.

        That a signature failed, or that a stranger wrote, is remembered with the repo: once its
        key or PDS changes, it is fetched again (A-21). So is what it was judged by: somebody may
        have stored another since.
        """
        message = waiting.message
        self.refuse(waiting.doubt, did=message.did, detail=waiting.detail)
        return StagedEvent(
            seq=message.seq,
            did=message.did,
            kind="rejected",
            status=self._repos.signer(message.did).text(),
            reason=waiting.doubt,
        )

    def refuse(
        self, reason: str, *, did: str = "", detail: str = "", sample: bytes | None = None
    ) -> None:
        """Count a refusal with this source's host."""
        self._problems.note(reason, host=self._host, did=did, detail=detail, sample=sample)

    def _verify(self, message: Signed, key: PublicKey) -> StagedEvent | Waiting | None:
        try:
            if isinstance(message, SyncMessage):
                return stage_sync(verify_sync(message, key, now_us=self._clock_us()))
            commit = verify_commit(message, key, now_us=self._clock_us())
            for reason in commit.skipped:
                self.refuse(reason, did=message.did)
            return stage_commit(commit, self._repos.collections)
        except BadSignature as error:
            return Waiting(message, "bad_signature", error.detail)
        except BrokenCommit as error:
            self.refuse(error.reason, did=message.did, detail=error.detail)
            return StagedEvent(
                seq=message.seq,
                did=message.did,
                kind="broken",
                rev=error.rev,
                reason=error.reason,
            )
        except ProtocolError as error:
            self.refuse(error.reason, did=message.did, detail=error.detail)
        except Exception as error:  # noqa: BLE001  (no bytes may stop the lane: FA-14)
            _log.error("a message could not be judged", did=message.did, error=repr(error)[:300])
            self.refuse("unexpected_error", did=message.did, detail=type(error).__name__)
        return None


def host_of(url: str) -> str:
    """Return host and port of a URL in the one form in which they are compared (HO-01)."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = parts.port
    if port is None or port == _DEFAULT_PORTS.get(parts.scheme):
        return host
    return f"{host}:{port}"
