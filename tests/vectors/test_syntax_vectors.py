"""The official syntax files: every valid line is accepted, every invalid one refused."""

from collections.abc import Callable

import pytest

from sync.atproto import syntax
from sync.atproto.cid import is_cid_syntax

Cases = Callable[[str], list[str]]
Check = Callable[[str], bool]

CHECKS = [
    pytest.param("did", syntax.is_did, marks=pytest.mark.rule("SX-01"), id="did"),
    pytest.param("handle", syntax.is_handle, marks=pytest.mark.rule("SX-05"), id="handle"),
    pytest.param("atidentifier", syntax.is_at_identifier, id="at-identifier"),
    pytest.param("nsid", syntax.is_nsid, marks=pytest.mark.rule("SX-08"), id="nsid"),
    pytest.param("recordkey", syntax.is_rkey, marks=pytest.mark.rule("SX-10"), id="record-key"),
    pytest.param("tid", syntax.is_tid, marks=pytest.mark.rule("SX-12"), id="tid"),
    pytest.param("aturi", syntax.is_at_uri, marks=pytest.mark.rule("SX-14"), id="at-uri"),
    pytest.param("datetime", syntax.is_datetime, marks=pytest.mark.rule("SX-15"), id="datetime"),
    pytest.param("cid", is_cid_syntax, marks=pytest.mark.rule("SX-17"), id="cid"),
]


@pytest.mark.parametrize(("name", "check"), CHECKS)
def test_valid_lines_are_accepted(name: str, check: Check, cases: Cases) -> None:
    lines = cases(f"{name}_syntax_valid.txt")
    assert lines
    assert [line for line in lines if not check(line)] == []


@pytest.mark.parametrize(("name", "check"), CHECKS)
def test_invalid_lines_are_refused(name: str, check: Check, cases: Cases) -> None:
    lines = cases(f"{name}_syntax_invalid.txt")
    assert lines
    assert [line for line in lines if check(line)] == []


@pytest.mark.rule("SX-16")
def test_datetimes_that_name_no_moment_are_refused(cases: Cases) -> None:
    lines = cases("datetime_parse_invalid.txt")
    assert lines
    assert [line for line in lines if syntax.is_datetime(line)] == []
