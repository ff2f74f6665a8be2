"""The official commit proofs: build both trees, undo the commit with the listed blocks alone."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from sync.atproto import mst
from sync.atproto.cid import format_cid, parse_cid
from sync.atproto.inversion import invert
from sync.atproto.node import MstError
from sync.atproto.ops import Change

_NAMES = [
    "two deep split",
    "two deep leafless split",
    "add on edge with neighbor two layers down",
    "merge and split in multi-op commit",
    "complex multi-op commit",
    "split with earlier leaves on same layer",
]


@pytest.fixture(scope="module")
def fixtures(interop: Path) -> dict[str, dict[str, Any]]:
    text = (interop / "firehose" / "commit-proof-fixtures.json").read_text()
    return {case["comment"]: case for case in json.loads(text)}


def test_every_official_case_is_run(fixtures: dict[str, dict[str, Any]]) -> None:
    assert sorted(fixtures) == sorted(_NAMES)


@pytest.mark.rule("IV-01", "IV-02", "IV-03", "D-05")
@pytest.mark.scenario("A-45")
@pytest.mark.parametrize("name", _NAMES)
def test_an_official_commit_is_undone_with_its_proof(
    fixtures: dict[str, dict[str, Any]], name: str
) -> None:
    case = fixtures[name]
    value = parse_cid(case["leafValue"])
    before = {key.encode(): value for key in case["keys"]}
    adds = {key.encode(): value for key in case["adds"]}
    deletes = {key.encode() for key in case["dels"]}
    after = {key: cid for key, cid in (before | adds).items() if key not in deletes}

    old_root, _ = mst.build(before)
    root, blocks = mst.build(after)
    assert format_cid(old_root) == case["rootBeforeCommit"]
    assert format_cid(root) == case["rootAfterCommit"]

    changes = [Change(key, "", "", None, value) for key in adds]
    changes += [Change(key, "", "", value, None) for key in deletes]
    changes.sort(key=lambda change: change.key)
    proof = {cid: blocks[cid] for cid in map(parse_cid, case["blocksInProof"])}
    assert invert(root, proof, changes) == old_root

    # No subset of the changes leads there, and without its top the proof is none.
    for size in range(len(changes)):
        for some in itertools.combinations(changes, size):
            assert invert(root, blocks, some) != old_root
    del proof[root]
    with pytest.raises(MstError, match="missing_node"):
        invert(root, proof, changes)
