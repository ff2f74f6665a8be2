"""Identifier syntax beyond the official vectors: anchors, methods, paths, TIDs."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.atproto import syntax
from sync.atproto.cid import is_cid_syntax

PLC = "did:plc:7iza6de2dwap2sbkpav7c6c6"


@pytest.mark.rule("SX-18")
@pytest.mark.rule("SX-19")
@pytest.mark.parametrize("tail", ["\n", " ", "\0", "\r", "\u2028"])
def test_nothing_may_follow_an_identifier(tail: str) -> None:
    assert not syntax.is_did(PLC + tail)
    assert not syntax.is_handle("a.test" + tail)
    assert not syntax.is_nsid("a.b.c" + tail)
    assert not syntax.is_rkey("self" + tail)
    assert not syntax.is_tid("3jzfcijpj2z2a" + tail)
    assert not syntax.is_at_uri(f"at://{PLC}" + tail)
    assert not syntax.is_datetime("1985-04-12T23:20:50Z" + tail)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        pytest.param(
            syntax.is_did,
            ["did:web:a.b", "did:x:A%3A1", PLC],
            [
                "did:X:a",
                "did:web:",
                "did:web:a:",
                "did:web:a%",
                "did:web:a#b",
                "did:web:a?b",
                "DID:x:a",
            ],
            marks=pytest.mark.rule("SX-01"),
            id="did",
        ),
        pytest.param(
            syntax.is_handle,
            ["a.b", "A-1.Test", "a" * 63 + ".b", "a.b-" + "c" * 60],
            ["a", "a.", ".a", "a..b", "-a.b", "a-.b", "a.1b", "a_b.c", "é.b", "a" * 64 + ".b"],
            marks=pytest.mark.rule("SX-05"),
            id="handle",
        ),
        pytest.param(
            syntax.is_nsid,
            ["a.b.c", "a-1.b.cD9", "a.b." + "c" * 63],
            ["a.b", "1a.b.c", "a.b.1c", "a.b.c-d", "a..c", "a.-b.c", "a.b." + "c" * 64, "a.b.c."],
            marks=pytest.mark.rule("SX-08"),
            id="nsid",
        ),
        pytest.param(
            syntax.is_rkey,
            ["a", "A-z_0.9:~", "...", "o" * 512],
            ["", ".", "..", "a/b", "a b", "a%b", "é", "o" * 513],
            marks=pytest.mark.rule("SX-10"),
            id="rkey",
        ),
        pytest.param(
            syntax.is_tid,
            ["2222222222222", "jzzzzzzzzzzzz"],
            ["kzzzzzzzzzzzz", "222222222222", "22222222222222", "3JZFCIJPJ2Z2A", "3jzfcijpj2z21"],
            marks=pytest.mark.rule("SX-12"),
            id="tid",
        ),
        pytest.param(
            syntax.is_at_uri,
            [f"at://{PLC}", "at://a.b/a.b.c", "at://a.b/a.b.c/self"],
            [
                "at://",
                "at://a.b/",
                "at://a.b/a.b.c/",
                "at://a.b/a.b.c/x/y",
                "at://a.b?q",
                "at://a.b#f",
                "AT://a.b",
                "at://a.b/c",
                "at://a.b/a.b.c/" + "o" * 8192,
            ],
            marks=pytest.mark.rule("SX-14"),
            id="at-uri",
        ),
        pytest.param(
            syntax.is_datetime,
            ["1985-04-12T23:20:50Z", "1985-04-12T23:20:50.123456789+01:30"],
            [
                "1985-04-12t23:20:50Z",
                "1985-04-12T23:20:50z",
                "1985-04-12T23:20:50",
                "1985-04-12 23:20:50Z",
                "1985-04-12T23:20Z",
                "1985-04-12T23:20:50.Z",
                "1985-4-12T23:20:50Z",
                "1985-04-12T23:20:50+0100",
            ],
            marks=pytest.mark.rule("SX-15"),
            id="datetime",
        ),
        pytest.param(
            is_cid_syntax,
            [
                "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a",
                "zdj7WhuEjrB52m1BisYCtmjH1hSKa7yZ3jEZ9JcXaFRD51wVz",
            ],
            ["", "b", "bafy/x", "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR"],
            marks=pytest.mark.rule("SX-17"),
            id="cid",
        ),
    ],
)
def test_each_kind_of_identifier_has_its_own_syntax(
    check: Callable[[str], bool], good: list[str], bad: list[str]
) -> None:
    assert [text for text in good if not check(text)] == []
    assert [text for text in bad if check(text)] == []


@pytest.mark.rule("SX-08", "SX-10", "SX-15")
def test_digits_of_other_scripts_are_no_digits() -> None:
    assert not syntax.is_rkey("١٢٣")
    assert not syntax.is_datetime("１985-04-12T23:20:50Z")
    assert not syntax.is_nsid("a.b.ｃ")


@pytest.mark.rule("SX-01")
def test_a_did_may_have_2048_characters_and_no_more() -> None:
    assert syntax.is_did("did:web:" + "a" * 2040)
    assert not syntax.is_did("did:web:" + "a" * 2041)


@pytest.mark.rule("SX-15")
def test_a_datetime_may_have_64_characters_and_no_more() -> None:
    assert syntax.is_datetime("1985-04-12T23:20:50." + "1" * 43 + "Z")
    assert not syntax.is_datetime("1985-04-12T23:20:50." + "1" * 44 + "Z")


@pytest.mark.rule("SX-02")
@pytest.mark.rule("SX-03")
@pytest.mark.rule("SX-04")
def test_only_plc_and_web_dids_on_public_hosts_are_supported() -> None:
    for did in (PLC, "did:web:example.com", "did:web:a.b.co.uk"):
        assert syntax.is_supported_did(did)
    for did in (
        "did:plc:7iza6de2dwap2sbkpav7c6c",
        "did:plc:7iza6de2dwap2sbkpav7c6c1",
        "did:plc:7IZA6DE2DWAP2SBKPAV7C6C6",
        "did:key:zQ3shZc2QzApp2oymGvQbzP8eKheVshBHbU4ZYjeXqwSKEn6N",
        "did:example:example.com",
        "did:web:example.com:path",
        "did:web:example.com%3A8080",
        "did:web:Example.com",
        "did:web:localhost",
        "did:web:localhost%3A8080",
        "did:web:a.internal",
        "did:web:a.test",
        "did:web:10.0.0.1",
        "did:web:-a.com",
        "did:web:com",
    ):
        assert not syntax.is_supported_did(did), did


@pytest.mark.rule("SX-04")
def test_the_development_switch_admits_localhost_and_test() -> None:
    for did in ("did:web:localhost%3A8080", "did:web:localhost", "did:web:a.test"):
        assert syntax.is_supported_did(did, allow_local=True)
    assert not syntax.is_supported_did("did:web:a.internal", allow_local=True)
    assert not syntax.is_supported_did("did:web:a.com%3A80", allow_local=True)


@pytest.mark.rule("SX-06")
@pytest.mark.rule("SX-07")
def test_handles_under_reserved_names_are_never_looked_up() -> None:
    assert syntax.is_resolvable_handle("alice.example.com")
    for handle in ("a.local", "a.ONION", "handle.invalid", "a.test", "no_handle.com"):
        assert not syntax.is_resolvable_handle(handle)
    assert syntax.is_resolvable_handle("a.test", allow_local=True)


@pytest.mark.rule("SX-09")
def test_two_spellings_are_two_collections() -> None:
    assert syntax.is_nsid("com.example.fooBar")
    assert syntax.split_path(b"com.example.fooBar/Self") == ("com.example.fooBar", "Self")


def test_a_pattern_is_a_collection_or_everything_below_a_name() -> None:
    for pattern in ("app.bsky.feed.post", "app.bsky.feed.*", "app.bsky.*"):
        assert syntax.is_collection_pattern(pattern)
    for pattern in ("", "*", ".*", "app.*", "app.bsky.feed*", "app.*.post", "app.bsky.*.*"):
        assert not syntax.is_collection_pattern(pattern)


@pytest.mark.rule("SX-20")
@pytest.mark.rule("MS-20")
def test_a_path_has_one_slash_between_two_good_parts() -> None:
    assert syntax.split_path(b"a.b.c/self") == ("a.b.c", "self")
    assert syntax.split_path(b"a.b.c/" + b"o" * 512) is not None
    for key in (
        b"",
        b"/",
        b"a.b.c",
        b"a.b.c/",
        b"/self",
        b"/a.b.c/self",
        b"a.b.c/self/more",
        b"a.b.c/.",
        b"a.b.c/..",
        b"a.b.c/a b",
        b"a.b.c/self\n",
        b"a.b.c/\0",
        b"a.b.c/\xff",
        b"a.b.c/\xc3\xa9",
        b"$account/self",
        b"a.b/self",
        b"a.b.c/" + b"o" * 513,
    ):
        assert syntax.split_path(key) is None, key


@pytest.mark.rule("SX-12")
@pytest.mark.rule("SX-13")
@given(st.integers(0, 2**53 - 1), st.integers(0, 1023))
@settings(max_examples=50, deadline=None)
def test_tids_carry_their_time(time_us: int, clock_id: int) -> None:
    tid = syntax.make_tid(time_us, clock_id)
    assert syntax.is_tid(tid)
    assert syntax.tid_time_us(tid) == time_us


@pytest.mark.rule("SX-12")
@given(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1))
@settings(max_examples=50, deadline=None)
def test_tids_sort_as_their_times(one: int, other: int) -> None:
    assert (syntax.make_tid(one, 0) < syntax.make_tid(other, 0)) == (one < other)


@pytest.mark.rule("SX-16")
def test_datetimes_know_the_calendar() -> None:
    assert syntax.is_datetime("2024-02-29T00:00:00Z")
    assert syntax.is_datetime("0000-02-29T00:00:00Z")
    for text in (
        "2023-02-29T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:00:60Z",
        "2024-01-01T00:00:00+24:00",
        "2024-01-01T00:00:00+00:60",
        "2024-01-01T00:00:00-00:00",
        "0000-01-01T00:30:00+00:31",
        "2024-01-01T00:00:00." + "1" * 60 + "Z",
    ):
        assert not syntax.is_datetime(text), text
