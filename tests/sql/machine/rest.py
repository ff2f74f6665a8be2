"""The end of a history: every transaction over, everything done, every reader at rest."""

import asyncio

from sync.database import connect
from sync.retention import retire_partitions
from sync.roles import INGESTER
from tests.sql.driver import cid, did
from tests.sql.machine.shards import Consumer, standing
from tests.sql.machine.world import World
from tests.sql.waiting import patient_retention

_STATE = """
    select r.did, r.sync_state, r.tracked_by is not null and r.is_active as is_wanted,
           (select coalesce(jsonb_agg(jsonb_build_array(c.nsid, s.rkey, s.cid)),
                            '[]')
              from sync.stored_records s join sync.collections c using (collection_id)
             where s.repo_id = r.repo_id and sync_priv.is_tracked_nsid(c.nsid)) as records
      from sync.repos r
"""
_IN_USE = """
    select exists (
      select from pg_locks l where l.locktype = 'relation'
         and l.relation in (select 'sync.changes'::regclass
                             union all select inhrelid from pg_inherits
                             where inhparent = 'sync.changes'::regclass)
         and l.pid <> pg_backend_pid()) as yes
"""


def drop_partitions(world: World) -> None:
    """Do what the service does with retired partitions, unless it would have to wait."""
    in_use = world.scratch.admin.execute(_IN_USE).fetchone()
    if in_use == {"yes": True}:
        world.reached["partitions in use"] += 1
        return
    before = _partitions(world)
    asyncio.run(_retire(world.scratch.url))
    world.reached["partitions dropped"] += before - _partitions(world)
    world.history.note()


async def _retire(url: str) -> None:
    conn = await connect(url, name="test machine", role=INGESTER)
    try:
        with patient_retention():
            assert await retire_partitions(conn, url=url)
    finally:
        await conn.close()


def _partitions(world: World) -> int:
    row = world.scratch.admin.execute(
        "select count(*) as n from pg_class where relname ~ '^changes_[0-9]+$' and relkind = 'r'"
    ).fetchone()
    assert row is not None
    return int(row["n"])


def come_to_rest(world: World) -> None:
    """End everything that is open, do everything that is left, and compare."""
    for seat in world.seats:
        if seat.work is not None and seat.number % 2:
            world.roll_back(seat)
        elif seat.work is not None:
            world.commit(seat)
    settle(world)
    for name in world.consumers:
        if any(
            standing(world.scratch.admin, shard).is_outrun
            for key, shard in world.shards.items()
            if key[0] == name
        ):
            world.replay(world.seats[0], name, None, None)
            world.commit(world.seats[0])
    for key in world.shards:
        read_to_rest(world, key)
        world.reached["shards at rest"] += 1
    world.reached["histories"] += 1


def settle(world: World) -> None:
    """Fetch and purge until nothing is left to do; then what is stored is what accounts hold."""
    seat = world.seats[0]
    wanted = [did(account.number) for account in world.network.accounts]
    world.write(
        seat,
        "resync at the end",
        lambda db: db.execute(
            "select sync.resync_repos(array(select did from sync.repos where did = any (%s)"
            " and tracked_by = 'did'))",
            [wanted],
        ),
    )
    world.commit(seat)
    for _ in range(200):
        is_more = world.upkeep(seat, commit=True)
        world.deliver(seat, world.network.accounts)
        world.commit(seat)
        world.claim(seat, 100, fresh=True)
        for repo_id in list(world.claims):
            is_more = True
            world.reconcile(seat, repo_id)
            world.commit(seat)
        if not is_more:
            break
    else:
        raise AssertionError("there is always more to do")
    _compare(world)


def _compare(world: World) -> None:
    accounts = {did(account.number): account for account in world.network.accounts}
    tracked = world.seats[0].driver.rows(
        "select pattern from sync.filters where kind = 'collection'"
    )
    everything = Consumer("", [row["pattern"] for row in tracked], None, 1)
    for row in world.seats[0].driver.rows(_STATE):
        if not row["is_wanted"]:
            continue
        assert row["sync_state"] == "synchronized", row
        assert {(r[0], r[1]): r[2] for r in row["records"]} == {
            key: "\\x" + cid(text).hex()
            for key, text in accounts[row["did"]].records.items()
            if everything.covers((row["did"], *key))
        }
        world.reached["repos compared with the network"] += 1


def read_to_rest(world: World, key: tuple[str, int]) -> None:
    """Read a shard until nothing is pending: then it holds what sync.records shows."""
    seat = world.seats[0]
    for _ in range(500):
        for _ in range(3):
            assert world.read(seat, key, 7)
        world.commit(seat)
        shard = world.shards[key]
        at = standing(world.scratch.admin, shard)
        if at.frontier is None and not at.pending and at.position >= world.history.heads[-1]:
            return
    raise AssertionError(f"{shard} does not come to rest: {at}")
