"""What a commit's ops amount to, path by path."""

import pytest

from sync.atproto.cid import cid_for
from sync.atproto.frame import RepoOp
from sync.atproto.ops import OpsError, net_changes

PATH = "com.example.note/self"
A, B, C = (cid_for(block) for block in (b"a", b"b", b"c"))
CREATE, UPDATE, DELETE = "create", "update", "delete"

Step = tuple[str, bytes | None, bytes | None]


def ops(*steps: Step) -> list[RepoOp]:
    return [RepoOp(action, PATH, cid, prev) for action, cid, prev in steps]


@pytest.mark.rule("CM-26", "CM-27", "CM-28")
@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        ((CREATE, A, None), None, A),
        ((UPDATE, B, A), A, B),
        ((DELETE, None, A), A, None),
    ],
)
def test_a_single_op_is_its_own_net_change(
    step: Step, before: bytes | None, after: bytes | None
) -> None:
    (change,) = net_changes(ops(step))
    assert (change.before, change.after) == (before, after)
    assert (change.collection, change.rkey) == ("com.example.note", "self")


@pytest.mark.rule("D-04", "CM-30")
@pytest.mark.parametrize(
    ("steps", "before", "after"),
    [
        pytest.param([(CREATE, A, None), (DELETE, None, None)], None, None, id="come and go"),
        pytest.param([(CREATE, A, None), (DELETE, None, A)], None, None, id="with prev"),
        pytest.param([(CREATE, A, None), (UPDATE, B, None)], None, B, id="create, update"),
        pytest.param([(DELETE, None, A), (CREATE, B, None)], A, B, id="replace"),
        pytest.param([(DELETE, None, A), (CREATE, A, None)], A, A, id="put back"),
        pytest.param([(UPDATE, B, A), (UPDATE, C, A)], A, C, id="prev before the commit"),
        pytest.param([(UPDATE, B, A), (UPDATE, C, B)], A, C, id="prev before the op"),
        pytest.param([(UPDATE, B, A), (DELETE, None, A)], A, None, id="update, delete"),
    ],
)
def test_several_ops_on_one_path_count_by_their_net_effect(
    steps: list[Step], before: bytes | None, after: bytes | None
) -> None:
    (change,) = net_changes(ops(*steps))
    assert (change.before, change.after) == (before, after)


@pytest.mark.rule("CM-25", "CM-26", "CM-27", "CM-28", "D-04")
@pytest.mark.scenario("A-27")
@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([("rename", A, None)], "bad_op"),
        ([(CREATE, None, None)], "bad_op"),
        ([(CREATE, A, B)], "bad_op"),
        ([(UPDATE, None, A)], "bad_op"),
        ([(UPDATE, A, None)], "missing_prev"),
        ([(DELETE, A, B)], "bad_op"),
        ([(DELETE, None, None)], "missing_prev"),
        ([(DELETE, None, None), (CREATE, A, None)], "missing_prev"),
        ([(CREATE, A, None), (CREATE, B, None)], "bad_op"),
        ([(DELETE, None, A), (UPDATE, B, A)], "bad_op"),
        ([(DELETE, None, A), (DELETE, None, A)], "bad_op"),
        ([(UPDATE, B, A), (UPDATE, A, C)], "bad_op"),
        ([(CREATE, A, None), (DELETE, B, None)], "bad_op"),
    ],
)
def test_contradictions_and_gaps_are_refused(steps: list[Step], reason: str) -> None:
    with pytest.raises(OpsError) as caught:
        net_changes(ops(*steps))
    assert caught.value.reason == reason


@pytest.mark.rule("CM-29", "SX-20")
@pytest.mark.scenario("A-30")
@pytest.mark.parametrize(
    "path",
    ["", "/", "com.example.note", "com.example.note/", "/self", "com.example.note/a/b",
     "com.example.note/..", "note/self", "com.example.note/a b", "com.example.note/ü",
     "com.example.note/a\n", "com.example.note/\x00", "com.example.note/" + "a" * 513],
)  # fmt: skip
def test_an_op_on_an_invalid_path_is_refused(path: str) -> None:
    with pytest.raises(OpsError, match="bad_path"):
        net_changes([RepoOp(CREATE, path, A, None)])


def test_changes_come_in_byte_order_of_their_keys() -> None:
    paths = [
        "com.example.note/self",
        "com.example.note/Self",
        "com.example.a.b/x",
        "com.example.a/x",
    ]
    changes = net_changes([RepoOp(CREATE, path, A, None) for path in paths])
    assert [change.key for change in changes] == sorted(path.encode() for path in paths)
