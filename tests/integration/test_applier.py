"""Batches against the real functions: halving, fencing, and a database that goes away."""

import hashlib
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from sync.applier import Applier, Batch, LaneFenced
from sync.database import Plans
from sync.problems import ProblemLog
from sync.progress import Progress, SourceProgress
from sync.simnet import Simnet
from sync.staging import EventOp, LaneClaim, StagedEvent
from tests.integration.rig import NOTE, note, rig_on

SEQ = 100


def did(number: int) -> str:
    """Return a DID."""
    return f"did:plc:{'a' * 20}{number:04}".translate(str.maketrans("0189", "bcde"))


def cid(text: str) -> bytes:
    """Return a CID that stands for a text."""
    return b"\x01\x71\x12\x20" + hashlib.sha256(text.encode()).digest()


def event(number: int, value: str) -> StagedEvent:
    """Return the first commit after the head of a repo, with one record."""
    op = EventOp("create", NOTE, "a", cid(value), value, None, None)
    return StagedEvent(
        seq=SEQ + number,
        did=did(number),
        kind="commit",
        rev="3jzfcijpj2z2b",
        since="3jzfcijpj2z2a",
        prev_data=cid("before"),
        data_cid=cid(f"after {number}"),
        commit_block=b"signed",
        ops=(op,),
    )


async def lane_on(ingest, clone: str, repos: int):
    """Return an applier, its claim, and an owner's connection; the repos are synchronized."""
    owner = await asyncpg.connect(clone)
    await owner.execute("select sync.track_repos($1)", [did(number) for number in range(repos)])
    await owner.execute("set role sync_owner")
    await owner.execute("update sync.repos set sync_state = 'fetching'")
    await owner.execute("update sync.repos set sync_state = 'synchronized'")
    await owner.execute(
        "update sync.heads set rev = '3jzfcijpj2z2a', data_cid = $1, commit_block = $1",
        cid("before"),
    )
    conn = await ingest()
    await conn.execute("select sync.open_stage()")
    source_id = await conn.fetchval("select sync.add_source('wss://relay.test', 'relay')")
    token, _ = await conn.fetchrow("select token, seq from sync.claim_lane($1, 0)", source_id)
    applier = Applier(
        conn,
        LaneClaim(source_id, 0, token),
        progress=Progress(),
        source=SourceProgress("wss://relay.test", "relay"),
    )
    return applier, owner, source_id


def batch_of(events: list[StagedEvent], cursor: int = SEQ + 50) -> Batch:
    """Return a batch."""
    return Batch(tuple(events), cursor=cursor, generation=1, problems=ProblemLog())


@pytest.mark.scenario("A-36")
@pytest.mark.rule("OP-10", "D-03")
async def test_one_poisoned_event_costs_its_repo_and_nobody_else(ingest, clone):
    applier, owner, _ = await lane_on(ingest, clone, 1000)
    values = ['{"n": 1}' if number != 400 else '{"broken' for number in range(1000)]
    events = [event(number, value) for number, value in enumerate(values)]
    await applier.apply(batch_of(events, SEQ + 1050))
    states = dict(await owner.fetch("select did, sync_state from sync.repo_status"))
    assert states.pop(did(400)) == "desynchronized"
    assert set(states.values()) == {"synchronized"}
    assert await owner.fetchval("select count(*) from sync.stored_records") == 999
    assert await owner.fetchval("select seq from sync.cursors") == SEQ + 1050
    reasons = {row["reason"] for row in await owner.fetch("select reason from sync.problems")}
    assert "apply_22P02" in reasons
    await owner.close()


@pytest.mark.rule("OP-10", "AC-18", "D-11")
async def test_a_status_that_cannot_be_taken_is_asked_for(ingest, clone):
    applier, owner, _ = await lane_on(ingest, clone, 2)
    await owner.execute("update sync.repos set is_identity_stale = false")
    status = StagedEvent(SEQ, did(1), "account", is_active=False, status="a\0")
    await applier.apply(batch_of([status]))
    query = "select did from sync.repos where is_identity_stale and sync_state = 'desynchronized'"
    assert await owner.fetchval(query) == did(1)
    await owner.close()


@pytest.mark.rule("CU-08", "CU-09", "OP-10")
async def test_a_gap_is_noted_with_the_first_half_that_moves_the_cursor(ingest, clone, monkeypatch):
    applier, owner, _ = await lane_on(ingest, clone, 4)
    events = [event(number, "{}" if number < 3 else '{"broken') for number in range(4)]

    async def die(*_: object) -> None:
        raise ConnectionError("killed between the halves")

    monkeypatch.setattr(applier, "_apply_culprit", die)
    with pytest.raises(ConnectionError):
        await applier.apply(replace(batch_of(events), has_gap=True))
    assert await owner.fetchval("select seq from sync.cursors") == SEQ + 2
    assert await owner.fetchval("select gap_since from sync.sources") is not None
    await owner.close()


@pytest.mark.rule("CU-04")
async def test_a_lane_that_somebody_else_claimed_writes_nothing_more(ingest, clone):
    applier, owner, source_id = await lane_on(ingest, clone, 2)
    await owner.fetchrow("select * from sync.claim_lane($1, 0)", source_id)
    with pytest.raises(LaneFenced):
        await applier.apply(batch_of([event(0, "{}")]))
    assert await owner.fetchval("select count(*) from sync.stored_records") == 0
    assert await owner.fetchval("select seq from sync.cursors") is None
    await owner.close()


@pytest.mark.rule("CM-15", "CU-05")
async def test_a_batch_applied_twice_is_applied_once(ingest, clone):
    applier, owner, _ = await lane_on(ingest, clone, 3)
    batch = batch_of([event(number, "{}") for number in range(3)])
    await applier.apply(batch)
    assert await owner.fetchval("select count(*) from sync.stored_records") == 3
    logged = await owner.fetchval("select count(*) from sync.changes")
    assert logged
    await applier.apply(batch)
    assert await owner.fetchval("select count(*) from sync.changes") == logged
    states = await owner.fetch("select distinct sync_state from sync.repo_status")
    assert [tuple(row) for row in states] == [("synchronized",)]
    await owner.close()


@pytest.mark.timeout(120)
async def test_a_service_whose_connections_are_cut_goes_on(clone, postgres, tmp_path: Path):
    async with Simnet(seed=91, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        admin = await asyncpg.connect(postgres.admin_url(clone.rpartition("/")[2]))
        for number in range(3):
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and application_name like 'standpipe %'"
            )
            alice.create(NOTE, note(f"after cut {number}"), rkey=f"r{number}")
            await rig.level(alice)
        await admin.close()
        await rig.stop()


async def test_a_lane_plans_anew_now_and_then(ingest, clone, monkeypatch):
    applier, owner, _ = await lane_on(ingest, clone, 1)
    statements: list[str] = []
    applier._conn.add_query_logger(lambda record: statements.append(record.query))
    await applier.apply(batch_of([]))
    assert statements.count("discard plans") == 1
    await applier.apply(batch_of([]))
    assert statements.count("discard plans") == 1, "not with every batch"
    monkeypatch.setattr("sync.database.REPLAN_S", -1.0)
    applier._plans._due_at = 0.0
    for _ in range(2):
        await applier.apply(batch_of([]))
    assert statements.count("discard plans") == 3
    await owner.close()


async def test_who_fetches_plans_anew_now_and_then(clone, tmp_path: Path, monkeypatch):
    renewed: set[str] = set()

    class Recorded(Plans):
        async def renew_if_due(self) -> None:
            await super().renew_if_due()
            renewed.add(await self._conn.fetchval("select current_setting('application_name')"))

    monkeypatch.setattr("sync.fetcher.Plans", Recorded)
    async with Simnet(seed=41, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
    assert renewed == {"standpipe fetches", "standpipe reconcile"}
