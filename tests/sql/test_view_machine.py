"""Random lexicons, random records and random views: a read never fails, and every typed column is
what a straightforward reading of the lexicon says."""

import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.rows import dict_row

from tests.sql.driver import LIKE, POST, did
from tests.sql.lexicon_reading import READERS, SQL_TYPES, as_stored, reader_of
from tests.sql.readers import Session, World
from tests.sql.test_typed_values import DATETIMES, VALUES
from tests.sql.views import FIXED, columns_of, create, lexicon, store

IS_LONG = bool(os.environ.get("STANDPIPE_TEST_LONG"))
EXAMPLES, STEPS = (2_000, 40) if IS_LONG else (60, 25)

REPOS = 3
VIEWS = {"posts": POST, '"My ""Posts"""': POST, "likes": LIKE}
SAFE = ["value ->> 'text'", "rev", "raw", "jsonb_typeof(value)", "value -> 'a' -> 0", "null", "1"]

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
_HARD = [
    "text", "createdAt", "created_at", "CreatedAt", "did", "cid", "uri", "rkey", "indexedAt",
    "indexed_at", "value", "value_did", "", '"; drop table sync.repos; --', "x" * 80, "ü" * 40,
    "ü" * 41, "ctid", "a'b\\", "%s %I",
]  # fmt: skip
NAMES = st.sampled_from(_HARD) | _TEXT
DEF_NAMES = st.sampled_from(["one", "two", "three", "main"])
_REFS = DEF_NAMES.map(lambda name: f"#{name}") | st.sampled_from(
    [f"{POST}#one", f"{LIKE}#two", "com.example.other", "#missing", "", "#"]
)
_PLAIN = st.sampled_from(
    ["string", "token", "boolean", "integer", "bytes", "cid-link", "blob", "unknown", "null", "x"]
).map(lambda kind: {"type": kind})
SCHEMAS = st.recursive(
    _PLAIN
    | st.just({"type": "string", "format": "datetime"})
    | st.builds(lambda ref: {"type": "ref", "ref": ref}, _REFS)
    | st.builds(lambda refs: {"type": "union", "refs": refs}, st.lists(_REFS, max_size=2)),
    lambda inner: (
        st.builds(lambda items: {"type": "array", "items": items}, inner)
        | st.builds(
            lambda parts: {"type": "object", "properties": parts},
            st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        )
    ),
    max_leaves=4,
)
PROPERTIES = st.dictionaries(NAMES, SCHEMAS, min_size=1, max_size=8)
DEFS = st.dictionaries(DEF_NAMES.filter(lambda name: name != "main"), SCHEMAS, max_size=3)

# What the types look for; any of them may come where another is expected.
FITTING = st.one_of(
    _TEXT,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    DATETIMES,
    st.lists(_TEXT, max_size=3),
    st.lists(st.integers(-9, 9), max_size=3),
    st.lists(st.booleans(), max_size=3),
    st.sampled_from(
        [
            {"$bytes": "AQI="},
            {"$link": "bafyrei"},
            {"$type": "blob", "ref": {"$link": "b"}, "mimeType": "a/b", "size": 1},
            {"cid": "b", "mimeType": "a/b"},
        ]
    ),
)
ANY = FITTING | VALUES


class Views(RuleBasedStateMachine):
    """Views of two collections, made, changed and dropped while records come and go."""

    db: Session

    def __init__(self) -> None:
        super().__init__()
        self.lexicons: dict[str, dict[str, Any]] = {}  # by view
        self.given: dict[str, dict[str, str]] = {}
        self.names: dict[str, dict[str, str]] = {}  # property → column
        self.known: dict[str, dict[str, Any]] = {}  # by collection
        self.records: dict[tuple[str, int, str], Any] = {}
        self.hidden: set[int] = set()
        self.db.execute("savepoint example")
        self.world = World(self.db, repos=REPOS)

    def teardown(self) -> None:
        self.db.execute("rollback to savepoint example")

    @initialize(properties=PROPERTIES, defs=DEFS)
    def begin(self, properties: dict[str, Any], defs: dict[str, Any]) -> None:
        self.db.execute("set local timezone = 'UTC'")
        self.make("posts", properties, defs)

    @rule(view=st.sampled_from(sorted(VIEWS)), properties=PROPERTIES, defs=DEFS)
    def make(self, view: str, properties: dict[str, Any], defs: dict[str, Any]) -> None:
        nsid = VIEWS[view]
        self.known[nsid] = lexicon(properties, nsid=nsid, **defs)
        self._made(view, create(self.db, view, self.known[nsid], nsid=nsid))

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def make_again(self, data: st.DataObject) -> None:
        """From the lexicon that is kept, which another view may have brought."""
        nsid = data.draw(st.sampled_from(sorted(self.known)))
        view = data.draw(st.sampled_from(sorted(v for v in VIEWS if VIEWS[v] == nsid)))
        if view in self.lexicons or not self.given.get(view):
            is_same = self.lexicons.get(view) is self.known[nsid]
            made = create(self.db, view, nsid=nsid)
            self._made(view, made)
            assert not is_same or {change for _, change in made.values()} <= {"kept"}

    @rule(view=st.sampled_from(sorted(VIEWS)), data=st.data())
    def give(self, view: str, data: st.DataObject) -> None:
        """Give columns, some of them in place of the lexicon's."""
        names = [*sorted(self.names.get(view, {}).values()), "extra", '"; drop']
        columns = data.draw(
            st.dictionaries(st.sampled_from(names), st.sampled_from(SAFE), min_size=1, max_size=3)
        )
        self.given[view] = columns
        has_lexicon = view in self.lexicons
        made = create(self.db, view, nsid=VIEWS[view], columns=columns)
        self._made(view, made, has_lexicon=has_lexicon)

    @precondition(lambda self: self.names)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        view = data.draw(st.sampled_from(sorted(self.names)))
        self.db.execute("select sync.drop_view(%s)", [view])
        for kept in (self.lexicons, self.given, self.names):
            kept.pop(view, None)

    @rule(
        nsid=st.sampled_from([POST, LIKE]),
        repo=st.integers(0, REPOS - 1),
        rkey=st.sampled_from("ab"),
        data=st.data(),
    )
    def put(self, nsid: str, repo: int, rkey: str, data: st.DataObject) -> None:
        """Store a record that has a value for every property, fit for it or not."""
        properties = sorted(self._properties(nsid))
        values = data.draw(st.lists(ANY, min_size=len(properties), max_size=len(properties)))
        self._put(nsid, repo, rkey, dict(zip(properties, values, strict=True)))

    @rule(
        nsid=st.sampled_from([POST, LIKE]),
        repo=st.integers(0, REPOS - 1),
        rkey=st.sampled_from("cd"),
        value=st.dictionaries(NAMES, VALUES, max_size=3) | st.binary(min_size=1, max_size=9),
    )
    def put_anything(self, nsid: str, repo: int, rkey: str, value: Any) -> None:
        """Store a record that knows nothing of the lexicon, or that JSON cannot hold."""
        self._put(nsid, repo, rkey, value)

    def _put(self, nsid: str, repo: int, rkey: str, value: Any) -> None:
        store(self.db, repo, rkey, value, collection=nsid)
        self.records[nsid, repo, rkey] = value

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        nsid, repo, rkey = data.draw(st.sampled_from(sorted(self.records)))
        self.world.remove(repo, rkey, collection=nsid)
        del self.records[nsid, repo, rkey]

    @rule(repo=st.just(REPOS - 1))
    def hide_or_show(self, repo: int) -> None:
        (self.world.restore if repo in self.hidden else self.world.take_down)(repo)
        self.hidden ^= {repo}

    @invariant()
    def every_column_is_what_its_lexicon_says(self) -> None:
        for view, names in self.names.items():
            shown = self.db.execute(f"select * from {_place(view)}".encode()).fetchall()
            rows = {(row["did"], row["rkey"]): row for row in shown}
            assert len(rows) == len(shown)
            expected = {
                (did(repo), rkey): value
                for (nsid, repo, rkey), value in self.records.items()
                if nsid == VIEWS[view] and repo not in self.hidden
            }
            assert rows.keys() == expected.keys()
            for key, value in expected.items():
                self._check_row(view, names, rows[key], value)

    def _check_row(self, view: str, names: dict[str, str], row: dict[str, Any], value: Any) -> None:
        fields = {} if isinstance(value, bytes) else as_stored(value)
        for prop, name in names.items():
            known = self.lexicons[view]
            reader = reader_of(known["defs"]["main"]["record"]["properties"][prop], known)
            assert row[name] == READERS[reader](fields.get(prop)), (prop, name, reader)

    def _properties(self, nsid: str) -> set[str]:
        known = self.known.get(nsid)
        return set(known["defs"]["main"]["record"]["properties"]) if known else set()

    def _made(
        self, view: str, made: dict[str, tuple[str, str]], *, has_lexicon: bool = True
    ) -> None:
        """Check what the view says it has, and that names of what stays have stayed."""
        nsid = VIEWS[view]
        if has_lexicon:
            self.lexicons[view] = self.known[nsid]
        row = self.db.execute(
            "select w.columns from sync.collection_views w"
            " where format('%%I.%%I', w.view_schema, w.view_name) = %s",
            [_place(view)],
        ).fetchone()
        assert row is not None
        columns = row["columns"]
        present = [name for name, (_, change) in made.items() if change != "removed"]
        assert present == [column["name"] for column in columns]
        assert columns_of(self.db, _place(view)) == FIXED + present
        assert all(0 < len(name.encode()) <= 63 for name in present)
        names = {c["property"]: c["name"] for c in columns if c["property"] is not None}
        before = self.names.get(view, {})
        assert all(names[prop] == before[prop] for prop in names.keys() & before.keys())
        given = self.given.get(view, {})
        assert {c["name"]: c["expression"] for c in columns if c["property"] is None} == given
        if has_lexicon:
            known = self.lexicons[view]
            properties = known["defs"]["main"]["record"]["properties"]
            assert len(names) >= len(properties) - len(given)
            for prop, name in names.items():
                assert made[name][0] == SQL_TYPES[reader_of(properties[prop], known)]
        self.names[view] = names


def _place(view: str) -> str:
    return f"sync_views.{view}"


@pytest.fixture
def machine(shared_url: str) -> Iterator[type[Views]]:
    """Return the machine on a connection whose work is rolled back."""
    with psycopg.connect(shared_url, row_factory=dict_row, prepare_threshold=None) as conn:

        class OnConnection(Views):
            db = conn

        yield OnConnection
        conn.rollback()


def test_views_of_random_lexicons_show_what_their_lexicons_say(machine: type[Views]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            phases=[phase for phase in Phase if IS_LONG or phase is not Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
