"""CIDs: 36 raw bytes inside, one spelling in text."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.atproto import cid

TEXT = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"


def test_a_block_is_named_by_its_codec_and_digest() -> None:
    assert cid.cid_for(b"x") == b"\x01\x71\x12\x20" + hashlib.sha256(b"x").digest()
    assert cid.cid_for(b"x", codec=0x55) == b"\x01\x55\x12\x20" + hashlib.sha256(b"x").digest()
    assert cid.cid_for(memoryview(b"x")) == cid.cid_for(b"x")


@pytest.mark.rule("DM-03")
@given(st.binary(), st.sampled_from([0x71, 0x55]))
@settings(max_examples=50, deadline=None)
def test_text_and_bytes_go_round(block: bytes, codec: int) -> None:
    name = cid.cid_for(block, codec=codec)
    assert cid.parse_cid(cid.format_cid(name)) == name


@pytest.mark.rule("CB-08", "DM-03")
def test_only_the_blessed_forms_are_read() -> None:
    assert cid.format_cid(cid.parse_cid(TEXT)) == TEXT
    bad = [
        "",
        "b",
        TEXT.upper(),
        "b" + TEXT[1:].upper(),
        TEXT[:-1],
        TEXT + "a",
        TEXT[:-1] + "b",  # stray bits behind the last byte
        TEXT + "\n",
        " " + TEXT,
        "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR",
        "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",  # dag-pb
        "b" + "é" * 58,
        "b" + "1" * 58,
    ]
    for text in bad:
        with pytest.raises(ValueError, match="not a CID"):
            cid.parse_cid(text)


def test_bytes_of_another_form_are_not_written() -> None:
    for raw in (b"", b"\x12\x20" + bytes(32), b"\x01\x71\x12\x20" + bytes(31)):
        with pytest.raises(ValueError, match="not a CID"):
            cid.format_cid(raw)


@pytest.mark.rule("D-09")
def test_record_links_are_told_from_blob_links() -> None:
    assert cid.is_dag_cbor(cid.cid_for(b""))
    assert not cid.is_dag_cbor(cid.cid_for(b"", codec=0x55))
    assert not cid.is_dag_cbor(cid.DAG_CBOR_PREFIX)
    assert cid.is_blessed(cid.cid_for(b"", codec=0x55))
    assert not cid.is_blessed(b"\x01\x70\x12\x20" + bytes(32))
