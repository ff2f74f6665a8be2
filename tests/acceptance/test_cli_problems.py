"""`standpipe problems`: what was refused, by reason, host and account, and what to do."""

from tests.acceptance.commands import Standpipe, on_clone, standpipe
from tests.acceptance.test_cli_tail import DID, OTHER_DID, OpenSession

__all__ = ["on_clone", "standpipe"]

NOTE_PROBLEMS = """
    select sync.note_problems('{chain_break,chain_break,fetch_refused}', '{a.test,b.test,a.test}',
                              array[%s, %s, %s], array[null, null, 'status 400'], '{2,1,5}',
                              array[null, null, null]::bytea[])
"""


def test_problems_are_counted_as_asked(on_clone: Standpipe, session: OpenSession) -> None:
    assert on_clone("problems").out == "No problem is known.\n"
    session().execute(NOTE_PROBLEMS, [DID, OTHER_DID, DID])
    by_reason = {row["reason"]: row for row in on_clone("problems", "--json").json_lines()}
    assert {name: row["events"] for name, row in by_reason.items()} == {
        "chain_break": 3,
        "fetch_refused": 5,
    }
    assert by_reason["chain_break"]["accounts"] == 2
    assert by_reason["fetch_refused"]["detail"] == "status 400"
    assert by_reason["fetch_refused"]["meaning"] == "its host answers with an error"
    by_host = on_clone("problems", "--by", "host", "--host", "a.test", "--json").json_lines()
    assert sorted((row["reason"], row["events"]) for row in by_host) == [
        ("chain_break", 2),
        ("fetch_refused", 5),
    ]
    [row] = on_clone("problems", "--by", "did", "--did", OTHER_DID, "--json").json_lines()
    assert (row["did"], row["host"], row["events"]) == (OTHER_DID, "b.test", 1)


def test_people_are_told_what_to_do(on_clone: Standpipe, session: OpenSession) -> None:
    session().execute(NOTE_PROBLEMS, [DID, OTHER_DID, DID])
    told = on_clone("problems", "--reason", "chain_break").out
    assert "chain_break: a commit that does not follow the one we have." in told
    assert "the repo is fetched again" in told
    assert "fetch_refused" not in told
    assert on_clone("problems", "--reason", "other").out == "None of those.\n"
    assert on_clone("problems", "--limit", "0").code == 2
