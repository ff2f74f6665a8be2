"""Trees, proofs, commits and exports agree byte for byte with the reference implementation.

Random repos whose keys are chosen by their layer, so that small ones are as deep as huge ones,
and edits of every shape. What either side writes, the other one reads and verifies.
"""

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync.atproto import cbor, mst
from sync.atproto.car import read_car, write_car
from sync.atproto.cid import cid_for, format_cid, parse_cid
from sync.atproto.commit import make_commit, read_commit
from sync.atproto.export import ExportLimits, read_export
from sync.atproto.frame import CommitMessage, RepoOp
from sync.atproto.keys import K256, PrivateKey
from sync.atproto.syntax import make_tid
from sync.atproto.verify import VerifiedCommit, verify_commit
from sync.simnet.repo import Repo, Write
from sync.simnet.tree import Tree
from tests.network.conversation import as_text
from tests.network.install import missing_tool, skip_loudly
from tests.peers.peer import Peer

pytestmark = [pytest.mark.timeout(300), pytest.mark.rule("MS-19", "IV-01")]

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
KEY = PrivateKey.generate(K256, seed=b"peer")
REV = make_tid(1_760_000_000_000_000, 1)
# The reference takes the revs of its commits from the clock of now.
FAR_FUTURE_US = 4_000_000_000_000_000
LIMITS = ExportLimits(max_bytes=100_000_000, max_blocks=100_000, max_records=100_000)
MINED = 100_000
# (action, path, record or nothing)
WriteOf = tuple[str, str, bytes]
DEEPEST = 7

# `make test-long` tries more.
TIMES = 20 if os.environ.get("STANDPIPE_TEST_LONG") else 1

quick = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def mine() -> list[list[str]]:
    """Return paths by their layer; those beyond the deepest count as deepest."""
    layers: list[list[str]] = [[] for _ in range(DEEPEST + 1)]
    for number in range(MINED):
        path = f"com.example.{'abc'[number % 3]}/{number}"
        layers[min(mst.key_layer(path.encode()), DEEPEST)].append(path)
    return layers


LAYERS = mine()
# A few keys of each layer, so that two draws often meet.
paths = st.integers(0, DEEPEST).flatmap(lambda layer: st.sampled_from(LAYERS[layer][:12]))


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    if missing := missing_tool("node", "npm"):
        skip_loudly(f"NOT TESTED against the reference implementation: it {missing}")
    with Peer() as made:
        yield made


def record(text: object) -> bytes:
    return cbor.encode({"$type": "com.example.a", "text": str(text)})


def leaf(text: object) -> bytes:
    return cid_for(record(text))


def assert_same_tree(peer: Peer, order: Sequence[str], deleted: Sequence[str] = ()) -> None:
    """Compare root and every node of the tree that some leaves make, whatever their order."""
    kept = {path.encode(): leaf(path) for path in order if path not in deleted}
    root, blocks = mst.build(kept)
    question = [[path, format_cid(leaf(path))] for path in order]
    answer = peer.ask("tree", leaves=question, deleted=list(deleted))
    assert answer["root"] == format_cid(root)
    assert read_car(answer["car"], max_blocks=100_000).blocks == blocks
    assert dict(Tree.build(kept).blocks()) == blocks


@given(st.lists(paths, unique=True, max_size=40), st.data())
@settings(quick, max_examples=500 * TIMES)
def test_the_same_leaves_make_the_same_nodes(peer: Peer, order: list[str], data) -> None:
    deleted = data.draw(st.lists(st.sampled_from(order), unique=True)) if order else []
    assert_same_tree(peer, order, deleted)


@pytest.mark.parametrize("size", [1, 2, 10, 100, 1_000, 5_000])
def test_repos_of_any_size_make_the_same_nodes(peer: Peer, size: int) -> None:
    rng = random.Random(size)
    everything = [path for layer in LAYERS for path in layer]
    assert_same_tree(peer, rng.sample(everything, size))


@dataclass
class Contents:
    """What a repo holds while it is edited: path to record."""

    records: dict[str, bytes] = field(default_factory=dict)
    number: int = 0

    def edit(self, batch: Sequence[tuple[str, bool]]) -> list[WriteOf]:
        """Change each path: create what is not there, update or delete what is."""
        writes = []
        for path, is_kept in batch:
            self.number += 1
            there = "update" if is_kept else "delete"
            action = there if path in self.records else "create"
            block = b"" if action == "delete" else record(self.number)
            writes.append((action, path, block))
            if action == "delete":
                del self.records[path]
            else:
                self.records[path] = block
        return writes


edits = st.lists(
    st.lists(st.tuples(paths, st.booleans()), unique_by=lambda edit: edit[0], max_size=12),
    min_size=1,
    max_size=4,
)
some_paths = st.lists(paths, unique=True, max_size=40)


@given(some_paths, edits)
@settings(quick, max_examples=200 * TIMES)
@pytest.mark.rule("IV-02", "IV-03", "CM-39")
@pytest.mark.scenario("A-45")
def test_commits_of_the_reference_are_verified(peer: Peer, first: list[str], batches) -> None:
    contents = Contents({path: record(path) for path in first})
    start(peer, contents)
    for batch in batches:
        before = dict(contents.records)
        writes = contents.edit(batch)
        answer = peer.ask("edit", writes=[as_question(*write) for write in writes])
        verified = verify(message_of(answer, writes, before))
        leaves = {path.encode(): cid_for(block) for path, block in contents.records.items()}
        assert (verified.data, verified.rev) == (mst.build(leaves)[0], answer["rev"])
        assert {(op.action, f"{op.collection}/{op.rkey}", op.cid) for op in verified.ops} == {
            (action, path, cid_for(block) if block else None) for action, path, block in writes
        }
        assert_same_commit(verified)
        assert_same_proofs(answer, Tree.build(leaves))
    assert_export(peer.ask("export")["car"], contents)


@given(some_paths, edits)
@settings(quick, max_examples=200 * TIMES)
def test_the_reference_verifies_our_commits(peer: Peer, first: list[str], batches) -> None:
    contents = Contents({path: record(path) for path in first})
    repo = Repo(DID, KEY)
    repo.start(REV, contents.records)
    for number, batch in enumerate(batches):
        before, head, old = repo.export(), repo.head, dict(contents.records)
        writes = contents.edit(batch)
        commit = repo.commit([as_write(*write) for write in writes], make_rev(number))
        answer = peer.ask("diff", before=before, after=commit.car, did=DID, key=KEY.public.did_key)
        # Of a deleted record it names what was there.
        assert sorted(answer["writes"]) == sorted(
            [action, path, format_cid(cid_for(block or old[path]))]
            for action, path, block in writes
        )
        assert (answer["rev"], commit.prev_data) == (repo.head.rev, head.tree.cid)
    read = peer.ask("read", car=repo.export(), did=DID, key=KEY.public.did_key)
    assert (read["head"], read["rev"]) == (format_cid(repo.head.cid), repo.head.rev)
    assert dict(read["records"]) == {
        path: format_cid(cid_for(block)) for path, block in contents.records.items()
    }


@pytest.mark.parametrize("size", [0, 1, 1_000, 5_000])
@pytest.mark.rule("CA-10")
@pytest.mark.scenario("A-46")
def test_exports_of_any_size_are_read_by_both(peer: Peer, size: int) -> None:
    rng = random.Random(size)
    chosen = rng.sample([path for layer in LAYERS for path in layer], size)
    contents = Contents({path: record(path) for path in chosen})
    car = start(peer, contents)
    assert_export(car, contents)
    repo = Repo(DID, KEY)
    repo.start(REV, contents.records)
    read = peer.ask("read", car=repo.export(), did=DID, key=KEY.public.did_key)
    assert read["head"] == format_cid(repo.head.cid) == format_cid(read_car_root(car))
    assert len(read["records"]) == size


def start(peer: Peer, contents: Contents) -> bytes:
    """Let the reference make a repo; returns its export."""
    records = [[path, as_text(block)] for path, block in contents.records.items()]
    answer = peer.ask("start", key=KEY.secret.hex(), did=DID, rev=REV, records=records)
    car: bytes = answer["car"]
    return car


def as_question(action: str, path: str, block: bytes) -> dict[str, str]:
    question = {"action": action, "path": path}
    return {**question, "record": as_text(block)} if block else question


def as_write(action: str, path: str, block: bytes) -> Write:
    collection, _, rkey = path.partition("/")
    return Write(action, collection, rkey, block or None)


def make_rev(number: int) -> str:
    return make_tid(1_760_000_001_000_000 + number, 1)


def message_of(
    answer: dict[str, Any], writes: Sequence[WriteOf], before: dict[str, bytes]
) -> CommitMessage:
    """Make the event that a server would send with the reference's commit."""
    ops = tuple(
        RepoOp(
            action,
            path,
            cid_for(block) if block else None,
            cid_for(before[path]) if path in before else None,
        )
        for action, path, block in writes
    )
    return CommitMessage(
        seq=1,
        did=DID,
        rev=answer["rev"],
        since=answer["since"],
        prev_data=parse_cid(answer["prevData"]),
        commit=parse_cid(answer["head"]),
        blocks=answer["car"],
        ops=ops,
        time="2026-01-01T00:00:00Z",
    )


def verify(message: CommitMessage) -> VerifiedCommit:
    return verify_commit(message, KEY.public, now_us=FAR_FUTURE_US)


def assert_same_commit(verified: VerifiedCommit) -> None:
    """Sign the same again: both sides sign deterministically."""
    assert make_commit(DID, verified.rev, verified.data, KEY)[1] == verified.commit_block


def assert_same_proofs(answer: dict[str, Any], tree: Tree) -> None:
    """Compare the nodes that prove a key and its neighbours."""
    for path, nodes in answer["proofs"].items():
        ours = {format_cid(cid) for cid in tree.covering_blocks(path.encode())}
        assert ours == set(nodes), path


def assert_export(car: bytes, contents: Contents) -> None:
    """Read an export, and write it again in its own order as the same bytes."""
    export = read_export(BytesIO(car), DID, KEY.public, now_us=FAR_FUTURE_US, limits=LIMITS)
    assert {f"{one.collection}/{one.rkey}": one.cid for one in export.leaves} == {
        path: cid_for(block) for path, block in contents.records.items()
    }
    blocks = read_car(car, max_blocks=100_000).blocks
    assert write_car(read_car_root(car), blocks.items()) == car
    assert read_commit(blocks[read_car_root(car)]).data == export.commit.data


def read_car_root(car: bytes) -> bytes:
    return read_car(car, max_blocks=100_000).roots[0]
