"""Random histories of everything that happens to records, while projections are kept.

Whenever nothing is pending, the table of each example and what hangs on it is what a query over
`sync.records` gives. Every history plays on accounts of its own; the tables remember them all.
"""

import json
import os
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.postgres import Server
from tests.sql import examples
from tests.sql.accounts import Accounts
from tests.sql.driver import LIKE, POST, Driver, Key, did
from tests.sql.projecting import ROLE, app_roles
from tests.sql.readers import Session

HISTORIES = 400 if "STANDPIPE_TEST_LONG" in os.environ else 25
LEAST_STEPS, STEPS = 12, 40
KEYS: list[Key] = [(collection, rkey) for collection in (POST, LIKE) for rkey in "abc"]
WEIGHTS = {
    "write": 10, "delete": 4, "say_inactive": 3, "say_active": 4, "take_down": 3, "restore": 4,
    "fetch": 6, "untrack": 2, "track": 3, "maintain": 2, "drop_likes": 1, "want_likes": 2,
    "run": 12, "settle": 3, "rebuild": 1, "pause": 1, "outrun": 1, "sign_up": 1, "label": 1,
}  # fmt: skip
ODD = (None, 7, "", "did:", "at://", "at:// x", ["did:plc:x"], {"uri": 3}, "x" * 3000, True)


@pytest.fixture(scope="module", autouse=True)
def roles(postgres: Server) -> Iterator[None]:
    with app_roles(postgres):
        yield


class Authors(Accounts):
    """Accounts whose records name each other, and now and then make no sense."""

    rng = random.Random(0)

    def text(self, number: int, key: Key) -> str:
        rng = self.rng
        other = did(rng.choice(list(self.all)))
        uri = f"at://{other}/{POST}/{rng.choice('abc')}"
        value: dict[str, object] = {"text": f"{number} {self.texts}", "subject": {"uri": uri}}
        if key[0] == POST:
            value |= {
                "langs": rng.choice([["en"], ["de", "en"], "en", None]),
                "createdAt": rng.choice(["2026-01-02T03:04:05Z", "yesterday", None]),
                "reply": {"parent": {"uri": uri}, "root": {"uri": f"at://{other}/{POST}/a"}},
                "labels": rng.choice([None, {"values": [{"val": "porn"}, {"val": 1}]}]),
                "facets": [{"features": [{"did": other}, {"uri": uri}]}],
            }
        if rng.random() < 0.2:
            value[rng.choice(sorted(value))] = rng.choice(ODD)
        return json.dumps(value)


class Walk:
    """One history."""

    def __init__(self, lane: Driver, rng: random.Random, first: int) -> None:
        self.lane, self.rng = lane, rng
        self.accounts = Authors(lane, range(first, first + 3))
        self.accounts.rng = rng
        for number in self.accounts.all:
            self.accounts.track(number)
            self.accounts.write(number, *rng.sample(KEYS, 3))
            self.accounts.fetch(number)

    def take(self, step: str) -> None:
        """Take one step on some account."""
        number = self.rng.choice(list(self.accounts.all))
        own = getattr(self, step, None)
        (own or getattr(self.accounts, step))(number)

    def write(self, number: int) -> None:
        self.accounts.write(number, *self.rng.sample(KEYS, self.rng.randint(1, 3)))

    def delete(self, number: int) -> None:
        if records := sorted(self.accounts.all[number].records):
            self.accounts.delete(number, self.rng.choice(records))

    def say_inactive(self, number: int) -> None:
        self.accounts.say(number, active=False, status="deactivated")

    def say_active(self, number: int) -> None:
        self.accounts.say(number, active=True)

    def fetch(self, number: int) -> None:
        if self.accounts.may_fetch(number):
            self.accounts.fetch(number)

    def maintain(self, _number: int) -> None:
        self.accounts.maintain()

    def drop_likes(self, _number: int) -> None:
        self.accounts.drop_collection(LIKE)

    def want_likes(self, _number: int) -> None:
        self.accounts.want_collection(LIKE)

    def run(self, _number: int) -> None:
        """Give one projection a batch of any size."""
        name = self.rng.choice(examples.names(self.lane.conn))
        limit = self.rng.choice([1, 2, 3, 10])
        self.lane.conn.execute("select sync.run_projection(%s, %s)", [name, limit])

    def rebuild(self, _number: int) -> None:
        name = self.rng.choice(examples.names(self.lane.conn))
        self.lane.conn.execute("select sync.rebuild_projection(%s)", [name])

    def pause(self, _number: int) -> None:
        name = self.rng.choice(examples.names(self.lane.conn))
        self.lane.conn.execute("select sync.pause_projection(%s)", [name])

    def outrun(self, _number: int) -> None:
        """Have the log retired under all of them."""
        self.lane.conn.execute("update sync_priv.consumer_shards set is_lost = true")

    def sign_up(self, number: int) -> None:
        self.lane.conn.execute(
            "insert into app.users (did, name) values (%s, 'x') on conflict do nothing",
            [did(number)],
        )

    def label(self, number: int) -> None:
        uri = f"at://{did(number)}/{POST}/a"
        self.lane.conn.execute(
            "insert into app.labels values (%s, %s, 'did:plc:labeler') on conflict do nothing",
            [self.rng.choice([uri, did(number)]), self.rng.choice(["porn", "fine"])],
        )

    def settle(self, _number: int) -> None:
        """Bring all to rest: their tables are what the records give."""
        conn = self.lane.conn
        for name in examples.names(conn):
            conn.execute("select sync.resume_projection(%s)", [name])
        examples.settle(conn, self.rng.choice([1, 3, 1000]))
        assert examples.differences(conn) == {}


@pytest.mark.slow
def test_every_table_is_what_the_records_give(session: Callable[..., Session]) -> None:
    lane = Driver(session())
    examples.install(session(), ROLE)
    first = [0]
    steps = [step for step, weight in WEIGHTS.items() for _ in range(weight)]

    @settings(max_examples=HISTORIES, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.sampled_from(steps), min_size=LEAST_STEPS, max_size=STEPS),
        st.integers(min_value=0, max_value=2**32),
    )
    def play(history: list[str], seed: int) -> None:
        first[0] += 3
        walk = Walk(lane, random.Random(seed), first[0])
        for step in history:
            walk.take(step)
        walk.settle(0)
        walk.maintain(0)
        walk.want_likes(0)
        walk.settle(0)

    play()
