"""`standpipe source`: firehoses added, paused, rewound and removed by hand."""

from tests.acceptance.commands import Standpipe, on_clone, standpipe
from tests.acceptance.test_cli_tail import OpenSession

__all__ = ["on_clone", "standpipe"]

URL = "https://pds.example.com"
NAME = "wss://pds.example.com"


def sources(run: Standpipe) -> dict[str, tuple[str, str]]:
    """Return kind and state of each source."""
    rows = run("source", "list", "--json").json_lines()
    return {row["url"]: (row["kind"], row["state"]) for row in rows}


def test_a_source_comes_stops_and_goes(on_clone: Standpipe) -> None:
    assert on_clone("source", "list").out.startswith("There is no source yet")
    assert NAME in on_clone("source", "add", URL, "--kind", "pds").out
    assert sources(on_clone) == {NAME: ("pds", "not read yet")}
    assert on_clone("source", "compare", "--json").json_lines() == [{"sources": 1}]
    assert "under way" in on_clone("source", "compare").out
    on_clone("source", "pause", URL)
    assert sources(on_clone) == {NAME: ("pds", "paused")}
    assert on_clone("source", "resume", URL, "--json").json_lines() == [
        {"url": NAME, "done": "resumed"}
    ]
    assert sources(on_clone) == {NAME: ("pds", "not read yet")}
    on_clone("source", "remove", URL)
    assert sources(on_clone) == {}


def test_a_source_that_was_read_is_rewound(on_clone: Standpipe, session: OpenSession) -> None:
    on_clone("source", "add", URL)
    on_clone("source", "rewind", URL, "7").assert_one_sentence(2, "no cursor yet")
    db = session()
    db.execute("select sync.claim_lane(source_id, 0) from sync.source_status")
    db.execute("update sync.cursors set seq = 9")
    on_clone("source", "rewind", URL, "10").assert_one_sentence(2, "only be rewound")
    assert on_clone("source", "rewind", URL, "7").out == f"{NAME} is read again from 7.\n"
    row = db.execute("select seq from sync.source_status").fetchone()
    assert row is not None
    assert row["seq"] == 7
    assert sources(on_clone) == {NAME: ("relay", "read")}
    on_clone("source", "add", URL, "--kind", "pds").assert_one_sentence(2, "known as a relay")


def test_what_is_no_source_is_refused(on_clone: Standpipe) -> None:
    on_clone("source", "add", "no url").assert_one_sentence(2, "not a source")
    on_clone("source", "add", URL + "/path").assert_one_sentence(2, "without a path")
    on_clone("source", "add", "http://pds.example.com").assert_one_sentence(2, "not encrypted")
    on_clone("source", "add", "wss://x.test:99999").assert_one_sentence(2, "not a source")
    on_clone("source", "add", "wss://[::1").assert_one_sentence(2, "not a source")
    on_clone("source", "add", "wss://me:secret@x.test").assert_one_sentence(2, "no password")
    on_clone("source", "pause", "nope").assert_one_sentence(2, "no source nope")
    for command in ("pause", "resume", "remove"):
        on_clone("source", command, URL).assert_one_sentence(2, "standpipe source list")
    assert on_clone("source", "rewind", URL, "-1").code == 2
