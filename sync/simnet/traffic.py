"""Fill the simulated network: accounts with records at once, and random honest commits."""

import random
from typing import Any

from sync.atproto.syntax import make_tid
from sync.simnet.account import Account
from sync.simnet.clock import DEFAULT_START_US, format_datetime
from sync.simnet.repo import RepoCommit, Write
from sync.simnet.world import World

POST = "app.bsky.feed.post"
LIKE = "app.bsky.feed.like"
FOLLOW = "app.bsky.graph.follow"
PROFILE = "app.bsky.actor.profile"

_WORDS = ("lorem", "ipsum", "dolor", "sit", "amet", "tempor", "café", "naïve", "東京", "🌊", "über")
_COLLECTIONS = (POST, LIKE, FOLLOW)
_WEIGHTS = (55, 35, 10)
# A CID of raw bytes that nobody has: links out of a repo may dangle (CA-12).
_IMAGE = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


def generate(world: World, n_accounts: int, n_records: int, *, seed: int = 0) -> list[Account]:
    """Create accounts, spread over the hosts and both curves, each with that many records."""
    rng = random.Random(f"{world.seed}:{seed}:generate")
    return [
        world.create_account(
            curve="p256" if number % 4 == 3 else "k256",
            pds=number % len(world.hosts),
            records=make_records(rng, n_records),
        )
        for number in range(n_accounts)
    ]


def make_records(rng: random.Random, count: int) -> dict[str, dict[str, Any]]:
    """Return records of the usual kinds under new keys: path to value."""
    records: dict[str, dict[str, Any]] = {}
    for number in range(count):
        if number == 0:
            records[f"{PROFILE}/self"] = make_record(rng, PROFILE)
            continue
        collection = _pick_collection(rng)
        records[f"{collection}/{_new_rkey(rng)}"] = make_record(rng, collection)
    return records


def make_record(rng: random.Random, collection: str) -> dict[str, Any]:
    """Return a plausible record of a collection, as JSON."""
    created = format_datetime(_past_us(rng))
    record: dict[str, Any] = {"$type": collection, "createdAt": created}
    did = "did:plc:" + "".join(rng.choices("abcdefghijklmnopqrstuvwxyz234567", k=24))
    if collection == LIKE:
        uri = f"at://{did}/{POST}/3k{''.join(rng.choices('234567abcdefghij', k=11))}"
        record["subject"] = {"uri": uri, "cid": _IMAGE}
    elif collection == FOLLOW:
        record["subject"] = did
    elif collection == PROFILE:
        record["displayName"] = _words(rng, 2)
        record["description"] = _words(rng, 12)
    else:
        record["text"] = _words(rng, rng.randint(3, 30))
        record["langs"] = rng.choice([["en"], ["de"], ["ja", "en"]])
        if rng.random() < 0.1:
            record["embed"] = _image(rng)
    return record


class Traffic:
    """Random commits on accounts of a World: mostly creates, some updates and deletes.

    Accounts that are hidden or deleted are left alone.
    """

    def __init__(self, world: World, *, seed: int = 0) -> None:
        self.world = world
        self._rng = random.Random(f"{world.seed}:{seed}:traffic")
        self._accounts = list(world.accounts.values())
        # Kept beside the trees: choosing from a large tree would mean walking it.
        self._paths = {
            account.did: list(account.leaves()) if account.can_write else []
            for account in self._accounts
        }

    def step(self) -> RepoCommit:
        """Make one commit of one operation, sometimes of several."""
        account = self._rng.choice(self._accounts)
        if not account.can_write:
            account = self._rng.choice([each for each in self._accounts if each.can_write])
        paths = self._paths[account.did]
        count = self._rng.randint(2, 10) if self._rng.random() < 0.05 else 1
        touched: set[str] = set()
        writes = []
        for _ in range(count):
            write = self._write(paths, touched)
            touched.add(write.path)
            writes.append(write)
        return account.apply_writes(writes)

    def _write(self, paths: list[str], touched: set[str]) -> Write:
        chance = self._rng.random()
        at = self._rng.randrange(len(paths)) if paths else 0
        if chance < 0.7 or not paths or paths[at] in touched:
            collection, rkey = _pick_collection(self._rng), _new_rkey(self._rng)
            paths.append(f"{collection}/{rkey}")
            return Write.create(collection, rkey, make_record(self._rng, collection))
        collection, _, rkey = paths[at].partition("/")
        if chance < 0.85:
            return Write.update(collection, rkey, make_record(self._rng, collection))
        paths[at] = paths[-1]
        paths.pop()
        return Write.delete(collection, rkey)


def commit_frames(world: World, count: int, *, seed: int = 0) -> list[bytes]:
    """Make that many commits and return the relay's frames for them: input for a benchmark."""
    traffic = Traffic(world, seed=seed)
    frames = []
    for _ in range(count):
        seq = world.relay.last_seq
        traffic.step()
        frames += [event.frame for event in world.relay.after(seq)]
    return frames


def _new_rkey(rng: random.Random) -> str:
    """Return a record key that follows the seed even where revs follow the wall clock."""
    return make_tid(_past_us(rng), rng.randrange(1_024))


def _past_us(rng: random.Random) -> int:
    return DEFAULT_START_US - rng.randrange(10**13)


def _pick_collection(rng: random.Random) -> str:
    return rng.choices(_COLLECTIONS, _WEIGHTS)[0]


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(_WORDS, k=count))


def _image(rng: random.Random) -> dict[str, Any]:
    blob = {
        "$type": "blob",
        "ref": {"$link": _IMAGE},
        "mimeType": "image/jpeg",
        "size": rng.randrange(1_000, 900_000),
    }
    return {"$type": "app.bsky.embed.images", "images": [{"alt": _words(rng, 4), "image": blob}]}
