"""The commit object: what must be in it, and what exactly is signed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.atproto import cbor, commit, keys
from sync.atproto.cbor import Link
from sync.atproto.cid import cid_for
from sync.errors import MessageError

DID = "did:plc:7iza6de2dwap2sbkpav7c6c6"
REV = "3jzfcijpj2z2a"
ROOT = cid_for(b"root")
KEY = keys.PrivateKey.generate(keys.K256, seed=b"account")


def signed(**changes: Any) -> bytes:
    """Return a commit block with some fields changed before it is signed."""
    fields = {"did": DID, "version": 3, "data": Link(ROOT), "rev": REV, "prev": None} | changes
    fields = {name: value for name, value in fields.items() if value is not ...}
    fields.setdefault("sig", KEY.sign(cbor.encode(fields)))
    return cbor.encode(fields)


def refuse(block: bytes) -> MessageError:
    with pytest.raises(MessageError) as caught:
        commit.read_commit(block)
    assert caught.value.reason == "bad_commit"
    return caught.value


@pytest.mark.rule("SG-02")
@pytest.mark.parametrize("curve", [keys.P256, keys.K256])
def test_a_commit_goes_round_and_verifies(curve: str) -> None:
    key = keys.PrivateKey.generate(curve, seed=b"account")
    cid, block = commit.make_commit(DID, REV, ROOT, key, prev=cid_for(b"older"))
    found = commit.read_commit(block)
    assert cid == cid_for(block)
    assert (found.did, found.rev, found.data) == (DID, REV, ROOT)
    assert found.prev == cid_for(b"older")
    assert found.block == block
    assert type(found.data) is bytes
    assert commit.check_signature(found, key.public)
    other = keys.PrivateKey.generate(curve, seed=b"other")
    assert not commit.check_signature(found, other.public)


@pytest.mark.rule("CM-37", "D-07")
def test_unknown_fields_are_part_of_what_is_signed() -> None:
    found = commit.read_commit(signed(extra={"a": [1, Link(ROOT)]}))
    assert commit.check_signature(found, KEY.public)
    fields = cbor.decode(signed())
    smuggled = commit.read_commit(cbor.encode(fields | {"extra": 1}))
    assert not commit.check_signature(smuggled, KEY.public)


@pytest.mark.rule("CM-09")
@pytest.mark.parametrize("name", ["did", "version", "data", "rev", "prev", "sig"])
def test_every_field_is_required(name: str) -> None:
    assert refuse(signed(**{name: ...}) if name != "sig" else _without_sig()).rule == "CM-09"


def _without_sig() -> bytes:
    fields = cbor.decode(signed())
    del fields["sig"]
    return cbor.encode(fields)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        pytest.param({"version": 2}, "CM-10", marks=pytest.mark.rule("CM-10")),
        pytest.param({"version": 4}, "CM-10"),
        pytest.param({"version": True}, "CM-10"),
        pytest.param({"version": "3"}, "CM-10"),
        pytest.param({"did": "alice.test"}, "CM-09"),
        pytest.param({"did": b"did:plc:a"}, "CM-09"),
        pytest.param({"did": DID + "\n"}, "CM-09"),
        pytest.param({"did": "did:plc:" + "/" * 24}, "CM-09"),
        pytest.param({"rev": ""}, "CM-13", marks=pytest.mark.rule("CM-13")),
        pytest.param({"rev": REV.upper()}, "CM-13"),
        pytest.param({"rev": 3}, "CM-13"),
        pytest.param({"rev": "k" + REV[1:]}, "CM-13", marks=pytest.mark.rule("SX-13")),
        pytest.param({"data": ROOT}, "CM-14", marks=pytest.mark.rule("CM-14")),
        pytest.param({"data": None}, "CM-14"),
        pytest.param({"data": Link(cid_for(b"", codec=0x55))}, "CM-14"),
        pytest.param({"prev": "x"}, "CM-14"),
        pytest.param({"prev": Link(cid_for(b"", codec=0x55))}, "CM-14"),
        pytest.param({"sig": "text"}, "SG-01", marks=pytest.mark.rule("SG-01")),
        pytest.param({"sig": Link(ROOT)}, "SG-01"),
    ],
)
def test_malformed_fields_are_refused(changes: dict[str, Any], rule: str) -> None:
    assert refuse(signed(**changes)).rule == rule


@pytest.mark.rule("SG-01")
def test_a_signature_of_another_length_is_read_and_does_not_verify() -> None:
    found = commit.read_commit(signed(sig=b"\x30\x44" + bytes(68)))
    assert not commit.check_signature(found, KEY.public)


@pytest.mark.rule("CM-38")
def test_a_commit_that_is_not_canonical_is_refused() -> None:
    block = signed()
    assert block[0] == 0xA6
    for bad in (
        b"\xb8\x06" + block[1:],
        block + b"\0",
        block[:-1],
        b"",
        b"\x80",
        cbor.encode("text"),
        block.replace(b"gversion\x03", b"gversion\x18\x03"),
    ):
        assert bad != block
        refuse(bad)


@pytest.mark.rule("CM-37", "CM-38")
@given(st.integers(0, 230), st.integers(0, 255))
def test_the_quick_and_the_careful_way_agree_on_any_changed_byte(at: int, byte: int) -> None:
    block = bytearray(signed())
    block[at % len(block)] = byte
    changed = bytes(block)
    try:
        careful = commit._read_commit(changed)
    except MessageError:
        with pytest.raises(MessageError):
            commit.read_commit(changed)
    else:
        assert commit.read_commit(changed) == careful


def test_the_commit_of_every_honest_account_is_read_the_quick_way() -> None:
    assert commit._USUAL_COMMIT.fullmatch(signed())
