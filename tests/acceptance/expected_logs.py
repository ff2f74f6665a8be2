"""What consumers must find in the change log after each situation, when nothing is lost."""

from collections.abc import Callable, Sequence

from tests.acceptance.plays import Word
from tests.network.situations import LARGE_RECORDS

RECORD_KINDS = {"create", "update", "delete"}

Expectation = Callable[[Sequence[Word], str], None]


def check_log(name: str, log: Sequence[Word], source_kind: str) -> None:
    """Check the log of one situation, as read from sources of a kind."""
    _EXPECTATIONS[name](log, source_kind)


def _records(*expected: str, is_live: bool | None = True) -> Expectation:
    """Expect these kinds of record changes in any order, and no word on the account."""

    def check(log: Sequence[Word], _: str) -> None:
        changes = [word for word in log if word[0] in RECORD_KINDS]
        assert sorted(kind for kind, *_ in changes) == sorted(expected)
        assert is_live is None or {live for _, _, live, _ in changes} <= {is_live}
        assert _statuses(log) == []

    return check


def _hidden(*expected: str | None) -> Expectation:
    """Expect these statuses one after the other, and no change of any record."""

    def check(log: Sequence[Word], _: str) -> None:
        assert _statuses(log) == list(expected)
        assert not [word for word in log if word[0] in RECORD_KINDS]
        kinds = [kind for kind, *_ in log]
        assert kinds.count("purge") == sum(
            status is not None and before is None
            for before, status in zip((None, *expected), expected, strict=False)
        )

    return check


def _create_update_delete(log: Sequence[Word], _: str) -> None:
    own = [(kind, live) for kind, rkey, live, _ in log if rkey == "self-made"]
    assert own == [("create", True), ("update", True), ("update", True), ("delete", True)]
    assert len([word for word in log if word[0] in RECORD_KINDS]) == len(own) + 3


def _apply_writes(log: Sequence[Word], _: str) -> None:
    def of(key: str) -> list[str]:
        return [kind for kind, rkey, *_ in log if rkey == key]

    assert of("n3") == ["create", "update"]
    assert of("n4") == ["create", "delete"]
    assert of("n900") in ([], ["create", "delete"])
    assert of("n1000") == ["create", "delete"]
    assert of("n1199") == of("x1") == ["create"]


def _moved(log: Sequence[Word], source_kind: str) -> None:
    """The contents were the same: only what was written at the new host is news (MG-04)."""
    assert [kind for kind, *_ in log if kind in RECORD_KINDS] == ["create"]
    if source_kind == "pds":
        assert _statuses(log) == [], "the old host's word counts for nothing (MG-03)"


def _away(log: Sequence[Word], _: str) -> None:
    own = {
        key: [(kind, live) for kind, rkey, live, _ in log if rkey == key]
        for key in ("replayed", "compared")
    }
    assert own["replayed"] == [("create", True), ("delete", False)]
    # The stream, rewound, and the comparison that follows find it at the same time.
    assert own["compared"] in ([("create", False), ("update", live)] for live in (True, False))


def _statuses(log: Sequence[Word]) -> list[str | None]:
    return [status for kind, _, _, status in log if kind == "account"]


_EXPECTATIONS: dict[str, Expectation] = {
    "create-account": lambda log, _: None,
    "create-update-delete": _create_update_delete,
    "apply-writes": _apply_writes,
    "deactivate-reactivate": _hidden("deactivated", None),
    "takedown": _hidden("takendown", None, "takendown", "deactivated", None),
    "handle-change": _records(),
    "key-rotation": _records("create", is_live=None),
    "key-changed-in-plc-only": _records("create", "create", is_live=None),
    "import-into-active-repo": _records("create", "delete", "create", is_live=None),
    "resequenced-sync": _records(),
    "migration-A-to-B": _moved,
    "account-deletion": _hidden("deleted"),
    "plc-tombstone": lambda log, _: None,
    "plc-outage": _records("create", "create"),
    "cursors": _away,
    "slow-consumer": _records(*["create"] * LARGE_RECORDS),
    "pds-restart": _records("create", "create"),
    "blobs": _records("create"),
}
