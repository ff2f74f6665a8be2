"""The functions that columns are made of, against a straightforward reading in Python."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.atproto.syntax import is_datetime
from tests.sql.lexicon_reading import READERS, SQL_TYPES, as_stored, read_datetime
from tests.sql.readers import Session
from tests.vectors.conftest import cases, interop, vectors

__all__ = ["cases", "interop", "vectors"]


@pytest.fixture(scope="module")
def session(shared_url: str) -> Iterator[Session]:
    """Return a connection for many examples; nothing is written."""
    with psycopg.connect(shared_url, row_factory=psycopg.rows.dict_row) as conn:
        conn.execute("set timezone = 'UTC'")
        yield conn


def read(session: Session, value: Any) -> dict[str, Any]:
    """Return what every function makes of a value, by its name."""
    calls = ", ".join(f"sync_migration.as_{name}(v) as {name}" for name in READERS)
    row = session.execute(
        f"select {calls} from cast(%s as jsonb) v".encode(), [json.dumps(value)]
    ).fetchone()
    assert row is not None
    return row


def expected(value: Any) -> dict[str, Any]:
    stored = as_stored(value)
    return {name: reader(stored) for name, reader in READERS.items()}


ODD: list[Any] = [
    None, True, False, 0, -1, 1.5, 1.0, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**40, 1e300,
    1e-300, "", "x", "null", "true", "1", [], {}, [None], [[]], [1, "a"], [True, 1], [1.0, 2],
    [2**63], ["a", None], {"$bytes": ""}, {"$bytes": "AQ"}, {"$bytes": "AQ="}, {"$bytes": "AQ=="},
    {"$bytes": "AQ==="}, {"$bytes": "A"}, {"$bytes": "AAAAA"}, {"$bytes": "A Q"},
    {"$bytes": "AQ\n"}, {"$bytes": "_-"}, {"$bytes": "=="}, {"$bytes": 5}, {"$bytes": None},
    {"$bytes": ["AQ"]}, {"$bytes": "AQ", "x": 1}, {"$link": "bafy"}, {"$link": ""},
    {"$link": 5}, {"$link": "x", "y": 1}, {"$link": None}, {"$type": "blob"},
    {"$type": "blob", "ref": {"$link": "x"}, "mimeType": "a/b", "size": 0},
    {"$type": "blob", "ref": {"$link": "x"}, "mimeType": "a/b", "size": -1},
    {"$type": "blob", "ref": {"$link": "x"}, "mimeType": "a/b", "size": "1"},
    {"$type": "blob", "ref": "x", "mimeType": "a/b", "size": 1},
    {"$type": "blob", "ref": {"$link": "x"}, "mimeType": 1, "size": 1},
    {"cid": "x", "mimeType": "a/b"}, {"cid": "x"}, {"cid": 1, "mimeType": "a/b"},
    {"$type": "other", "cid": "x", "mimeType": "a/b"},
    {"$type": None, "cid": "x", "mimeType": "a/b"},
]  # fmt: skip


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_odd_values_are_read_as_in_python(session: Session, value: Any) -> None:
    assert read(session, value) == expected(value)


@pytest.mark.parametrize("name", READERS)
def test_each_function_says_its_type_and_that_it_is_immutable(session: Session, name: str) -> None:
    row = session.execute(
        "select prorettype::regtype::text as type, provolatile as volatility, proparallel as safe"
        " from pg_proc where oid = %s::regprocedure",
        [f"sync_migration.as_{name}(jsonb)"],
    ).fetchone()
    assert row == {"type": SQL_TYPES[name], "volatility": "i", "safe": "s"}


# Values with what the readers look for in them.
_leaf = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.text("AQz09+/=-_ \n", max_size=9),
    st.sampled_from(["blob", "image/png", "2026-01-31T12:00:00Z"]),
)
_key = st.sampled_from(["$bytes", "$link", "$type", "ref", "cid", "mimeType", "size", "a"])
VALUES = st.recursive(
    _leaf,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_key, inner, max_size=5),
    max_leaves=8,
)


@given(VALUES)
def test_any_value_is_read_as_in_python(session: Session, value: Any) -> None:
    assert read(session, value) == expected(value)


# Datetimes --------------------------------------------------------------------------------------


def moment(session: Session, text: str) -> Any:
    row = session.execute(
        "select sync_migration.as_datetime(to_jsonb(%s::text)) as it", [text]
    ).fetchone()
    assert row is not None
    return row["it"]


@pytest.mark.rule("SX-15", "SX-16")
@pytest.mark.parametrize(
    "text",
    [
        "infinity", "-infinity", "now", "today", "epoch", "2026-01-31", "2026-01-31 12:00:00Z",
        "2026-01-31T12:00:00", "2026-01-31T12:00:00z", "2026-01-31t12:00:00Z",
        "2026-01-31T12:00Z", "2026-02-29T12:00:00Z", "2024-02-30T00:00:00Z",
        "1900-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z", "2026-04-31T00:00:00Z", "2026-01-31T24:00:00Z",
        "2026-01-31T23:60:00Z", "2026-01-31T23:59:60Z", "2026-01-31T12:00:00+24:00",
        "2026-01-31T12:00:00+00:60", "2026-01-31T12:00:00-00:00", "2026-01-31T12:00:00.Z",
        "2026-01-31T12:00:00Z ", " 2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z\n",
        "2026-01-31T12:00:00.123+0:00", "2026-01-31T12:00:00.1+0:00", "2026-01-31T12:00:00+0:000",
        "2026-01-31T12:00:00+:00:00", "2026-01-31T12:00:00Z+00:00", "2026-01-31T12:00:00.Z+00:00",
        "-2026-01-31T12:00:00Z", "+12026-01-31T12:00:00Z", "0000-01-01T00:00:00Z",
        "0000-12-31T23:59:59-01:00", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01",
        "2026-01-31T12:00:00." + "1" * 50 + "Z", "２０２６-01-31T12:00:00Z", "", "x" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_datetime_of_ours_is_null(session: Session, text: str) -> None:
    assert moment(session, text) is None
    assert read_datetime(text) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31T12:00:00.1Z", "2026-01-31T12:00:00.100000+00:00"),
        ("2026-01-31T12:00:00.9999999Z", "2026-01-31T12:00:00.999999+00:00"),
        ("2024-02-29T23:59:59+23:59", "2024-02-29T00:00:59+00:00"),
        ("2024-02-29T00:00:00-23:59", "2024-02-29T23:59:00+00:00"),
        ("2000-02-29T00:00:00+00:00", "2000-02-29T00:00:00+00:00"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999+00:00"),
    ],
)
def test_a_datetime_is_a_moment(session: Session, text: str, shown: str) -> None:
    assert moment(session, text).isoformat() == shown


def test_a_datetime_does_not_depend_on_the_session(session: Session) -> None:
    text = "2026-01-31T12:00:00.5+05:30"
    shown = moment(session, text)
    with session.transaction(force_rollback=True):
        session.execute("set local datestyle = 'SQL, DMY'")
        session.execute("set local intervalstyle = 'sql_standard'")
        session.execute("set local timezone = 'Asia/Kolkata'")
        row = session.execute(
            "select extract(epoch from sync_migration.as_datetime(to_jsonb(%s::text))) as it",
            [text],
        ).fetchone()
    assert row is not None
    assert float(row["it"]) == shown.timestamp()


def _digits(low: int, high: int, width: int = 2) -> st.SearchStrategy[str]:
    return st.integers(low, high).map(lambda number: f"{number:0{width}}")


DATETIMES = st.builds(
    "{}-{}-{}T{}:{}:{}{}{}".format,
    _digits(0, 9999, 4) | st.sampled_from(["0000", "0001", "9999", "2000", "1900", "2024"]),
    _digits(0, 13),
    _digits(0, 32) | st.sampled_from(["28", "29", "30", "31"]),
    _digits(0, 24),
    _digits(0, 60),
    _digits(0, 60),
    st.just("") | st.text("0123456789", min_size=1, max_size=12).map(lambda text: f".{text}"),
    st.just("Z")
    | st.builds("{}{}:{}".format, st.sampled_from("+-"), _digits(0, 24), _digits(0, 60))
    | st.text("Z+-:0129.", max_size=8),
)


@given(DATETIMES)
def test_any_datetime_is_read_as_in_python(session: Session, text: str) -> None:
    assert moment(session, text) == read_datetime(text)


@pytest.mark.rule("SX-15", "SX-16")
def test_the_official_datetimes_are_read(
    session: Session, cases: Callable[[str], list[str]]
) -> None:
    for text in cases("datetime_syntax_valid.txt"):
        assert moment(session, text) == read_datetime(text)
        assert moment(session, text) is not None or text.startswith("0000")
    invalid = cases("datetime_syntax_invalid.txt") + cases("datetime_parse_invalid.txt")
    assert len(invalid) > 20
    for text in invalid:
        assert moment(session, text) is None, text
        assert not is_datetime(text)


# Official records -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["record-data-valid.json", "record-data-invalid.json"])
def test_official_records_are_read_as_in_python(session: Session, interop: Path, name: str) -> None:
    found = json.loads((interop / "lexicon" / name).read_text(encoding="utf-8"))
    assert found
    for case in found:
        for value in _values(case["data"]):
            assert read(session, value) == expected(value), case["name"]


def _values(value: Any) -> Iterator[Any]:
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        yield from _values(item)
