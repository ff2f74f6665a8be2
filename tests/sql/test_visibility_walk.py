"""Short random histories of hiding, showing, writing, fetching, untracking and purging.

After every step the views and the log are what a model in plain Python says; now and then, and at
the end, so are the folds of consumers that joined at any time and read in batches of any size.
"""

import random
import time
from collections.abc import Callable

import pytest

from tests.sql.accounts import Accounts
from tests.sql.audience import KINDS, Audience
from tests.sql.driver import LIKE, POST, Driver, Key
from tests.sql.readers import Session

WALKS = 5
HISTORIES = 40
STEPS = 20
# A slow machine tells fewer histories rather than none.
ENOUGH_S = 40.0
LEAST = 5
KEYS: list[Key] = [(collection, rkey) for collection in (POST, LIKE) for rkey in "abc"]
STATUSES = ("deactivated", "takendown", "suspended", "deleted", "odd", None)


class Walk:
    """One history on accounts of its own."""

    def __init__(self, lane: Driver, rng: random.Random, first: int) -> None:
        self.rng = rng
        self.accounts = Accounts(lane, range(first, first + 3))
        self.audience = Audience(self.accounts)
        self.trace: list[str] = []
        self.steps: list[tuple[int, Callable[[int], None]]] = [
            (10, self.write),
            (4, self.delete),
            (6, self.say_inactive),
            (8, self.say_active),
            (5, self.take_down),
            (6, self.restore),
            (6, self.fetch),
            (2, self.untrack),
            (3, self.track),
            (3, self.maintain),
            (2, self.track_anew),
            (1, self.drop_likes),
            (2, self.want_likes),
            (1, self.want_likes_anew),
            (3, self.join),
            (4, self.read),
            (2, self.settle),
        ]

    def run(self) -> None:
        """Begin with something to see, walk, and come to rest."""
        for number in self.accounts.all:
            self.accounts.track(number)
            self.accounts.write(number, *self.rng.sample(KEYS, 3))
            if self.rng.random() < 0.2:
                self.accounts.take_down(number)
            self.accounts.fetch(number)
        self.join(0)
        weights = [weight for weight, _ in self.steps]
        for _ in range(STEPS):
            (_, step) = self.rng.choices(self.steps, weights)[0]
            number = self.rng.choice(list(self.accounts.all))
            self.trace.append(f"{step.__name__} {number}")
            step(number)
            self.accounts.check(self.trace)
        self.audience.settle(self.rng.randint(1, 5), self.trace)
        self.accounts.maintain()
        self.audience.settle(note=self.trace)
        # The next history tracks both again, and starts from records of its own.
        self.want_likes(0)

    def write(self, number: int) -> None:
        keys = self.rng.sample(KEYS, self.rng.randint(1, 3))
        self.accounts.write(number, *keys)

    def delete(self, number: int) -> None:
        records = sorted(self.accounts.all[number].records)
        if records:
            self.accounts.delete(number, self.rng.choice(records))

    def say_inactive(self, number: int) -> None:
        self.accounts.say(number, active=False, status=self.rng.choice(STATUSES))

    def say_active(self, number: int) -> None:
        status = self.rng.choice((None, None, "throttled", "desynchronized"))
        self.accounts.say(number, active=True, status=status)

    def take_down(self, number: int) -> None:
        self.accounts.take_down(number)

    def restore(self, number: int) -> None:
        self.accounts.restore(number)

    def fetch(self, number: int) -> None:
        if self.accounts.may_fetch(number):
            self.accounts.fetch(number)

    def untrack(self, number: int) -> None:
        self.accounts.untrack(number)

    def track(self, number: int) -> None:
        self.accounts.track(number)

    def maintain(self, _number: int) -> None:
        self.accounts.maintain()

    def drop_likes(self, _number: int) -> None:
        self.accounts.drop_collection(LIKE)

    def want_likes(self, _number: int) -> None:
        self.accounts.want_collection(LIKE)

    def track_anew(self, number: int) -> None:
        self.accounts.untrack(number)
        self.accounts.maintain()
        self.accounts.track(number)

    def want_likes_anew(self, number: int) -> None:
        self.accounts.drop_collection(LIKE)
        self.accounts.maintain()
        self.accounts.want_collection(LIKE)
        self.fetch(number)

    def join(self, _number: int) -> None:
        if len(self.audience.members) < 5:
            self.audience.add(self.rng.choice(KINDS))

    def read(self, _number: int) -> None:
        reader, _ = self.rng.choice(self.audience.members)
        reader.read(self.rng.randint(1, 4))

    def settle(self, _number: int) -> None:
        self.audience.settle(self.rng.randint(1, 5), self.trace)


@pytest.mark.slow
@pytest.mark.rule("AC-01", "AC-06", "AC-07", "AC-15", "AC-18")
@pytest.mark.parametrize("seed", range(WALKS))
def test_views_log_and_readers_are_what_the_model_says(
    session: Callable[..., Session], seed: int
) -> None:
    lane = Driver(session())
    deadline = time.monotonic() + ENOUGH_S
    for history in range(HISTORIES):
        if history >= LEAST and time.monotonic() > deadline:
            break
        Walk(lane, random.Random(1000 * seed + history), 1 + 3 * history).run()
