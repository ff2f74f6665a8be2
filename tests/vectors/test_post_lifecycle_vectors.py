"""Six real commits of one account in a row: each verifies, and they chain."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sync.atproto.frame import CommitMessage, read_frame
from sync.atproto.keys import PublicKey, parse_multikey
from sync.atproto.records import json_to_block
from sync.atproto.verify import verify_commit
from sync.errors import BadSignature, BrokenCommit

_NOW_US = 1_800_000_000_000_000


@pytest.fixture(scope="module")
def lifecycle(vectors: Path) -> Any:
    path = vectors / "post_lifecycle.json"
    if not path.is_file():
        pytest.skip("no post_lifecycle.json among the vectors")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def messages(lifecycle: Any) -> list[CommitMessage]:
    found = []
    for message in lifecycle["messages"]:
        frame = message["frame"]
        read = read_frame(json_to_block(frame["header"]) + json_to_block(frame["body"]))
        assert isinstance(read, CommitMessage)
        found.append(read)
    return found


@pytest.fixture(scope="module")
def key(lifecycle: Any) -> PublicKey:
    keys = lifecycle["accounts"][0]["identity"]["keys"]
    return parse_multikey(keys["atproto"]["publicKeyMultibase"])


@pytest.mark.rule("SG-02", "IV-01", "CM-17", "CM-18")
def test_real_commits_verify_and_chain(messages: list[CommitMessage], key: PublicKey) -> None:
    commits = [verify_commit(message, key, now_us=_NOW_US) for message in messages]
    assert len(commits) == 6
    for earlier, later in pairwise(commits):
        assert later.since == earlier.rev
        assert later.prev_data == earlier.data
    for message, commit in zip(messages, commits, strict=True):
        assert [(op.action, op.cid) for op in commit.ops] == [
            (op.action, op.cid) for op in sorted(message.ops, key=lambda op: op.path)
        ]


@pytest.mark.rule("D-03", "SG-04")
@pytest.mark.scenario("A-14", "A-38")
def test_real_commits_that_were_tampered_with_do_not_pass(
    messages: list[CommitMessage], key: PublicKey
) -> None:
    for message, other in pairwise(messages):
        with pytest.raises(BrokenCommit):
            verify_commit(replace(message, prev_data=other.prev_data), key, now_us=_NOW_US)
        with pytest.raises(BrokenCommit):
            verify_commit(replace(message, ops=()), key, now_us=_NOW_US)
        mirrored = bytes((key.point[0] ^ 1,)) + key.point[1:]
        stranger = replace(key, point=mirrored)
        with pytest.raises(BadSignature):
            verify_commit(message, stranger, now_us=_NOW_US)
