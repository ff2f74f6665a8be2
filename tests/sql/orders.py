"""Many repos with one history, each played in an order of its own, all in one database.

Each case is a repo. What happens to one touches no other, so that one statement plays a step of
them all. After each step everything that is stored has to be what the owner held at the stored
rev, and a consumer that takes every change at its word has to hold the same.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import DictRow

from sync.atproto.cid import format_cid
from tests.sql.driver import POST, Claim, Driver, Event, Op, cid, rev
from tests.sql.readers import Contents, make_reader
from tests.sql.waiting import wait_until_gone

Session = psycopg.Connection[DictRow]
OpenSession = Callable[..., Session]
StagedKey = tuple[int, str, str]  # repo, rkey, text

# What the owner's repo holds at each rev; no change is made twice, so none may be told twice.
HISTORY: tuple[dict[str, str], ...] = (
    {"kept": "kept", "old": "old"},
    {"kept": "kept", "old": "old", "new": "new 1"},
    {"kept": "kept", "old": "old", "new": "new 2"},
    {"kept": "kept", "new": "new 2"},
    {"kept": "kept", "old": "old"},
)
REVS = {rev(number): number for number in range(len(HISTORY))}
MOST = 100_000
_COPY_REPOS = (
    "copy pg_temp.stage_repos"
    " (repo_id, generation, fetch_token, rev, data_cid, commit_block, trust) from stdin"
)
_COPY_RECORDS = (
    "copy pg_temp.stage_records (repo_id, collection, rkey, cid, is_whole, value) from stdin"
)


def commit(name: str, number: int) -> Event:
    """Return the commit that leads to a rev of the history."""
    before, after = HISTORY[number - 1], HISTORY[number]
    ops = [
        Op("update" if rkey in before else "create", rkey, text)
        for rkey, text in after.items()
        if before.get(rkey) != text
    ]
    ops += [Op("delete", rkey) for rkey in before if rkey not in after]
    return Event(
        name, rev=number, since=number - 1, before=f"t{number - 1}", data=f"t{number}", ops=ops
    )


def sync(name: str, number: int) -> Event:
    """Return a #sync that announces a rev of the history."""
    return Event(name, kind="sync", rev=number, data=f"t{number}")


class Export(NamedTuple):
    """The repo as a fetch found it."""

    claim: Claim
    number: int  # its rev in the history


class Fetcher:
    """A session that claims and reconciles many repos at a time."""

    def __init__(self, conn: Session) -> None:
        self.conn = conn
        conn.execute("select sync.open_stage()")

    def claim(self) -> dict[str, Claim]:
        """Claim whatever may be fetched: did to claim."""
        rows = self.conn.execute("select * from sync.claim_fetches(%s, %s)", [MOST, MOST])
        names = ("repo_id", "generation", "fetch_token", "has_records")
        return {row["did"]: Claim(*(row[name] for name in names)) for row in rows.fetchall()}

    def reconcile(self, exports: Sequence[Export]) -> dict[int, str]:
        """Reconcile all of them in one transaction: repo_id to outcome."""
        if not exports:
            return {}
        call = [
            [claim.repo_id for claim, _ in exports],
            [len(HISTORY[number]) for _, number in exports],
            [cid(f"t{number}") for _, number in exports],
        ]
        with self.conn.transaction():
            return self._reconcile(exports, call)

    def _reconcile(self, exports: Sequence[Export], call: Sequence[object]) -> dict[int, str]:
        self._stage_repos(exports)
        self._stage_records(_keys(exports, has_records=True), is_whole=False)
        self._stage_records(_keys(exports, has_records=False), is_whole=True)
        if any(claim.has_records for claim, _ in exports):
            rows = self.conn.execute("select * from sync.diff_repos(%s, %s, %s)", call)
            needed = {(row["repo_id"], row["rkey"]) for row in rows.fetchall()}
            keys = _keys(exports, has_records=True)
            self._stage_records([key for key in keys if key[:2] in needed], is_whole=True)
        found = self.conn.execute("select * from sync.reconcile_repos(%s, %s, %s)", call)
        return {row["repo_id"]: row["outcome"] for row in found.fetchall()}

    def _stage_repos(self, exports: Sequence[Export]) -> None:
        with self.conn.cursor() as cursor, cursor.copy(_COPY_REPOS) as copy:
            for claim, number in exports:
                place = (claim.repo_id, claim.generation, claim.fetch_token)
                copy.write_row((*place, rev(number), cid(f"t{number}"), b"commit", "verified"))

    def _stage_records(self, keys: Sequence[StagedKey], *, is_whole: bool) -> None:
        with self.conn.cursor() as cursor, cursor.copy(_COPY_RECORDS) as copy:
            for repo_id, rkey, text in keys:
                value = json.dumps({"text": text}) if is_whole else None
                copy.write_row((repo_id, POST, rkey, cid(text), is_whole, value))


def _keys(exports: Sequence[Export], *, has_records: bool) -> list[StagedKey]:
    return [
        (claim.repo_id, rkey, text)
        for claim, number in exports
        if claim.has_records == has_records
        for rkey, text in HISTORY[number].items()
    ]


class Crowd:
    """The repos of all cases, who reads their log, and the time."""

    def __init__(self, open_session: OpenSession) -> None:
        self._open_session = open_session
        self._sessions: list[Session] = []
        self._hour = 0
        self.dids: list[str] = []  # those that are looked at
        self.admin = self.open()
        self.reader = make_reader(self.admin, "fold")

    def open(self) -> Session:
        """Open a session that sees the time of all."""
        conn = self._open_session()
        self._sessions.append(conn)
        self._tell_time(conn)
        return conn

    def tick(self) -> None:
        """Let so much time pass that nothing has to wait any more."""
        self._hour += 2
        self._sessions = [conn for conn in self._sessions if not conn.closed]
        for conn in self._sessions:
            self._tell_time(conn)

    def _tell_time(self, conn: Session) -> None:
        conn.execute(
            "select set_config('sync.now',"
            " (timestamptz '2026-11-26 00:00:00Z' + make_interval(hours => %s))::text, false)",
            [self._hour],
        )

    def end(self, conn: Session) -> None:
        """End a session, and wait until what it had not committed is gone."""
        pid = conn.info.backend_pid
        conn.close()
        wait_until_gone(self.admin, pid)

    def rows(self, query: str, *args: object) -> list[DictRow]:
        """Return the rows of a query."""
        return self.admin.execute(query, args).fetchall()

    def serve(self, hosts: Collection[str] | None) -> None:
        """Let these PDSes answer and no other; None: all of them."""
        self.admin.execute(
            "update sync.hosts h set ready_at = case when n.is_served then '-infinity'"
            "       else 'infinity'::timestamptz end"
            "  from (select o.host_id, %(all)s or o.url = any(%(urls)s) as is_served"
            "          from sync.hosts o) n"
            " where h.host_id = n.host_id and n.is_served <> (h.ready_at = '-infinity')",
            {"all": hosts is None, "urls": list(hosts or ())},
        )

    def begin(self, lane: Driver, loaded: Collection[str], hosts: Mapping[str, str]) -> None:
        """Track repos, each at its PDS; some are loaded already and wait for a resync."""
        if loaded:
            self.load(lane, loaded)
            self.admin.execute("select sync.resync_repos(%s)", [list(loaded)])
        self.dids = sorted(hosts)
        self.admin.execute("select sync.track_repos(%s)", [self.dids])
        lane.apply()
        self._locate(hosts)

    def _locate(self, hosts: Mapping[str, str]) -> None:
        self.admin.execute(
            "insert into sync.hosts (url) select distinct u.url from unnest(%s::text[]) as u (url)"
            " on conflict do nothing",
            [list(hosts.values())],
        )
        self.admin.execute(
            "update sync.repos r set pds_url = h.url, host_id = h.host_id"
            "  from unnest(%s::text[], %s::text[]) as n (did, url) join sync.hosts h using (url)"
            " where r.did = n.did",
            [list(hosts), list(hosts.values())],
        )

    def load(self, lane: Driver, dids: Collection[str]) -> None:
        """Track repos, and fetch the beginning of their history."""
        self.dids = sorted(dids)
        self.admin.execute("select sync.track_repos(%s)", [list(dids)])
        lane.apply()
        self.serve(None)
        fetcher = Fetcher(self.open())
        outcomes = fetcher.reconcile([Export(claim, 0) for claim in fetcher.claim().values()])
        assert list(outcomes.values()) == ["synchronized"] * len(dids)
        fetcher.conn.close()

    def fetch_all(self, number: int) -> int:
        """Fetch what waits for it, at this rev, until nothing does; return how often."""
        self.serve(None)
        fetcher = Fetcher(self.open())
        for rounds in range(4):
            self.tick()
            claims = fetcher.claim()
            if not claims:
                fetcher.conn.close()
                return rounds
            fetcher.reconcile([Export(claim, number) for claim in claims.values()])
        raise AssertionError("the fetches come to no end")

    def check(self) -> None:
        """Compare what is stored, and what a reader holds, with the owners' repos."""
        heads = self.heads()
        honest: Contents = {
            (name, POST, rkey): _cid_text(text)
            for name, (_, number) in heads.items()
            if number is not None
            for rkey, text in HISTORY[number].items()
        }
        found = self.rows(
            "select did, collection, rkey, cid from sync.records where did = any(%s)", self.dids
        )
        stored = {(row["did"], row["collection"], row["rkey"]): row["cid"] for row in found}
        self.reader.read_all(10_000)
        assert _differing(stored, honest) == []
        mine = set(self.dids)
        folded = {key: held for key, held in self.reader.state.items() if key[0] in mine}
        assert _differing(folded, stored) == []

    def heads(self) -> dict[str, tuple[str, int | None]]:
        """Return the state of every visible repo, and its rev in the history."""
        rows = self.rows(
            "select r.did, r.sync_state, h.rev from sync.repos r"
            "  join sync_priv.visible_repos using (repo_id) join sync.heads h using (repo_id)"
            " where r.did = any(%s)",
            self.dids,
        )
        return {
            row["did"]: (row["sync_state"], None if row["rev"] is None else REVS[row["rev"]])
            for row in rows
        }

    def check_log(self) -> None:
        """See that nothing was told twice, and nothing older after something newer."""
        twice = self.rows(
            "select did, kind, rkey, cid, count(*) from sync.change_log where rkey is not null"
            " group by 1, 2, 3, 4 having count(*) > 1"
        )
        back = self.rows(
            "select c.did, c.before, c.rev from ("
            "  select did, rev, lag(rev) over (partition by did order by change_id) as before"
            "    from sync.change_log where rev is not null) c where c.rev < c.before"
        )
        assert (twice[:5], back[:5]) == ([], [])
        left = self.rows("select held_id, repo_id, kind, rev from sync_priv.held_events")
        assert left[:5] == []


@cache
def _cid_text(text: str) -> str:
    return format_cid(cid(text))


def _differing(one: Contents, other: Contents) -> list[Any]:
    """Return some of what is not the same, for not everything can be read."""
    return sorted(set(one.items()) ^ set(other.items()))[:5]
