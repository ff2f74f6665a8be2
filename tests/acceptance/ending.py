"""What must be true of an account when a situation is over, whatever was lost on the way."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.acceptance.real_service import Service, canonical, keys_and_cids
from tests.network.harness import Account, Network
from tests.network.oracles import Oracle

PATTERNS = ("com.example.*", "app.bsky.feed.*")
TIMEOUT_S = 90.0
POLL_S = 0.1
# Nobody works on a repo in this many looks, one after the other.
QUIET_LOOKS = 5

_STATE = """
    select s.sync_state, s.is_active, s.account_status, s.is_visible, s.handle, s.pds_url, s.rev,
           s.held_events, r.is_identity_stale and r.identity_checked_at is null, s.error
      from sync.repo_status s join sync.repos r using (did)
     where did = %s
"""


@dataclass(frozen=True, slots=True)
class Ending:
    """An account as its host has it at the end, and what both oracles read there."""

    account: Account
    status: str | None
    pds_url: str
    rev: str = ""
    oracles: tuple[list[dict[str, object]], ...] = ()

    @classmethod
    def read(
        cls, network: Network, account: Account, *, status: str | None, oracles: Sequence[Oracle]
    ) -> "Ending":
        """Ask the account's host."""
        host = network.pds[account.pds]
        if status is not None:
            return cls(account, status, host.url)
        latest = network.query(account.pds, "com.atproto.sync.getLatestCommit", did=account.did)
        answers = [oracle.ask(host.inner_url, account.did) for oracle in oracles]
        records = tuple(
            [each for each in answer["records"] if is_tracked(each["collection"])]
            for answer in answers
        )
        assert all(records), f"{account.did} has no tracked record: nothing would be proved"
        return cls(account, status, host.url, latest["rev"], records)

    def flaws(self, service: Service) -> list[str]:
        """Return what is not as it must be."""
        rows = service.rows(_STATE, self.account.did)
        if not rows:
            return ["it is not known"]
        sync_state, is_active, status, is_visible, handle, pds_url, rev, *_ = rows[0]
        found = {"active": is_active, "status": status, "visible": is_visible}
        wanted = {
            "active": self.status is None,
            "status": self.status,
            "visible": self.status is None,
        }
        if self.status is None:
            found |= {"state": sync_state, "handle": handle, "pds": pds_url, "rev": rev}
            wanted |= {
                "state": "synchronized",
                "handle": self.account.handle,
                "pds": self.pds_url,
                "rev": self.rev,
            }
        flaws = [
            f"{name} is {found[name]}, not {wanted[name]}"
            for name in wanted
            if found[name] != wanted[name]
        ]
        return flaws or self._record_flaws(service)

    def _record_flaws(self, service: Service) -> list[str]:
        stored = service.records(self.account.did)
        if self.status is not None:
            return [f"{len(stored)} records are shown"] if stored else []
        for number, expected in enumerate(self.oracles):
            if keys_and_cids(stored) != keys_and_cids(expected):
                return [f"other records than oracle {number} reads"]
            for ours, theirs in zip(stored, expected, strict=True):
                if canonical(ours["value"]) != canonical(theirs["value"]):
                    return [f"{ours['rkey']} differs from oracle {number}"]
        return []


def wait_for_ending(service: Service, ending: Ending, *, gives_up: bool = False) -> list[str]:
    """Wait until all is as it must be.

    Returns what is not when nobody works on it any more, if that may be so.
    """
    deadline = time.monotonic() + TIMEOUT_S
    quiet = 0
    while flaws := ending.flaws(service):
        quiet = quiet + 1 if _is_at_rest(service, ending.account.did) else 0
        if gives_up and quiet >= QUIET_LOOKS:
            return flaws
        if time.monotonic() >= deadline:
            state = service.rows(_STATE, ending.account.did)
            raise AssertionError(f"{service.kind}: not within {TIMEOUT_S} s: {flaws} {state}")
        time.sleep(POLL_S)
    return []


def compare_with_hosts(service: Service) -> None:
    """Do what `standpipe source compare` does, and wait for its end."""
    service.forget_lookups()
    service.rows("select sync.compare_repos()")
    gaps = "select count(*) from sync.source_status where gap_since is not null"
    service.wait_until(
        lambda: service.rows(gaps) == [(0,)], lambda: service.rows("table sync.source_status")
    )


def is_tracked(collection: str) -> bool:
    """Say what PATTERNS mean, independently of the service's own code."""
    return collection.startswith(("com.example.", "app.bsky.feed."))


def _is_at_rest(service: Service, did: str) -> bool:
    sync_state, is_active, *_, held, is_stale, _ = service.rows(_STATE, did)[0]
    gaps = service.rows("select from sync.source_status where gap_since is not null")
    is_idle = sync_state == "synchronized" or not is_active
    return is_idle and not held and not is_stale and not gaps
