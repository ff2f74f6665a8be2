"""The examples of docs/examples/projections, kept by a whole service on a simulated network."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sync.simnet import Simnet
from sync.simnet.traffic import FOLLOW, LIKE, POST, Traffic, generate
from tests.integration.rig import rig_on
from tests.postgres import Server
from tests.sql import examples
from tests.sql.projecting import ROLE, app_roles
from tests.sql.readers import Session

pytestmark = pytest.mark.timeout(180)
ODD: list[dict[str, Any]] = [
    {"$type": FOLLOW, "subject": {"uri": "no did"}},
    {"$type": FOLLOW, "subject": "did:plc:" + "x" * 3000},
    {"$type": LIKE, "subject": {"uri": "at://" + "ü" * 2000}},
    {"$type": LIKE, "subject": "at://did:plc:x/a.b.c/d"},
    {"$type": POST, "text": 7, "langs": "en", "createdAt": "yesterday", "reply": []},
    {"$type": POST, "text": "x" * 20_000, "labels": {"values": [{"val": "porn"}, 3]}},
    {"$type": POST, "text": "deep", "embed": [[[{"of": "did:web:a.test"}]]]},
]


@pytest.fixture(scope="module", autouse=True)
def roles(postgres: Server) -> Iterator[None]:
    with app_roles(postgres):
        yield


async def test_every_example_keeps_what_the_records_give(
    clone: str, tmp_path: Path, session: Callable[..., Session]
) -> None:
    rng = random.Random(6)
    conn = session()
    examples.install(session(), ROLE)
    async with Simnet(seed=6, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        accounts = generate(net.world, 4, 30)
        traffic = Traffic(net.world)

        async def is_kept() -> bool:
            rows = conn.execute("select * from sync.projection_status").fetchall()
            assert [row["error"] for row in rows if row["state"] != "running"] == []
            return all(row["is_at_rest"] for row in rows) and not examples.differences(conn)

        rig.start()
        await rig.track(*accounts)
        await rig.level(*accounts)
        await rig.until(is_kept)
        assert len(conn.execute("select from app.like_counts").fetchall()) > 5
        for value in ODD:
            rng.choice(accounts).create(value["$type"], value)
        self_reply = accounts[0].create(POST, {"$type": POST, "text": "root"}, rkey="root")
        assert self_reply
        root = f"at://{accounts[0].did}/{POST}/root"
        for number, parent in enumerate([root, f"at://{accounts[1].did}/{POST}/r0"]):
            reply = {"parent": {"uri": parent}, "root": {"uri": root}}
            accounts[1].create(
                POST, {"$type": POST, "text": f"reply {number}", "reply": reply}, rkey=f"r{number}"
            )
        for _ in range(60):
            traffic.step()
        conn.execute("insert into app.users (did, name) values (%s, 'one')", [accounts[2].did])
        conn.execute("insert into app.labels values (%s, 'porn', 'x')", [accounts[3].did])
        await rig.level(*accounts)
        await rig.until(is_kept)
        rows = conn.execute("select depth, text from app.thread(%s)", [root]).fetchall()
        assert [tuple(row.values()) for row in rows] == [
            (0, "root"),
            (1, "reply 0"),
            (2, "reply 1"),
        ]
        conn.execute("select sync.take_down_repos(%s)", [[accounts[0].did]])
        conn.execute("select sync.untrack_repos(%s)", [[accounts[1].did]])
        await rig.until(is_kept)
        conn.execute("select sync.restore_repos(%s)", [[accounts[0].did]])
        await rig.track(accounts[1])
        await rig.level(*accounts)
        await rig.until(is_kept)
        await rig.stop()
    for name in examples.names(conn):
        row = conn.execute("select * from sync.rebuild_projection(%s)", [name]).fetchone()
        assert row == {"deleted": 0, "updated": 0, "inserted": 0}, name
