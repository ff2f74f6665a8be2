"""The running service takes away by itself what the log has given up."""

from pathlib import Path

import pytest

from sync.simnet import Simnet
from tests.integration.rig import NOTE, note, rig_on

pytestmark = pytest.mark.timeout(120)

SMALL = """
    set role sync_owner;
    create or replace function sync_priv.partition_size() returns bigint
      language sql immutable as $$ select 20::bigint $$;
    reset role;
    select sync.set_retention('0');
    select sync.create_consumer('app', p_start => 'now')
"""
LEFT = "select count(*) from sync.log_status where state <> 'ahead'"


async def test_a_log_of_many_partitions_shrinks_as_its_reader_reads(clone: str, tmp_path: Path):
    async with Simnet(seed=31, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        await rig.conn.execute(SMALL)
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("before"), rkey="a")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        for number in range(60):
            alice.create(NOTE, note(str(number)))
        await rig.level(alice)
        assert await rig.conn.fetchval(LEFT) >= 3
        told: list[str] = []
        while rows := await rig.conn.fetch("select kind from sync.read_changes('app', 1000)"):
            told += [row["kind"] for row in rows]
        assert told.count("create") == 61

        async def is_small() -> bool:
            return bool(await rig.conn.fetchval(LEFT) <= 2)

        await rig.until(is_small)
        alice.create(NOTE, note("after"), rkey="z")
        await rig.level(alice)
        rows = await rig.conn.fetch("select rkey from sync.read_changes('app', 1000)")
        assert [row["rkey"] for row in rows] == ["z"]
        await rig.stop()
