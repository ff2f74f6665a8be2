"""Make, read and write content identifiers (CIDs).

A CID is its 36 raw bytes everywhere in Standpipe: version 1, one codec byte, sha2-256, the
digest. Text exists only at the edges (JSON, the command line), always as base32 with `b`.
"""

import hashlib
import re

import libipld

DAG_CBOR_PREFIX = b"\x01\x71\x12\x20"
RAW_PREFIX = b"\x01\x55\x12\x20"
CID_LENGTH = 36

_PREFIXES = {0x71: DAG_CBOR_PREFIX, 0x55: RAW_PREFIX}
_TEXT_LENGTH = 59
_ANY_CID = re.compile(r"[a-zA-Z0-9+=]{8,256}")


def cid_for(block: bytes | memoryview, *, codec: int = 0x71) -> bytes:
    """Return the CID that names a block (0x71 for DAG-CBOR, 0x55 for raw bytes)."""
    return _PREFIXES[codec] + hashlib.sha256(block).digest()


def is_dag_cbor(cid: bytes) -> bool:
    """Tell whether a CID has the one form that commits, tree nodes and records have (D-09)."""
    return len(cid) == CID_LENGTH and cid.startswith(DAG_CBOR_PREFIX)


def is_blessed(cid: bytes) -> bool:
    """Tell whether a CID may stand in a link: version 1, DAG-CBOR or raw, sha2-256 (CB-08)."""
    return len(cid) == CID_LENGTH and cid.startswith((DAG_CBOR_PREFIX, RAW_PREFIX))


def format_cid(cid: bytes) -> str:
    """Write a CID as text, base32 with the `b` prefix (DM-03)."""
    if not is_blessed(cid):
        raise ValueError("not a CID of the AT Protocol")
    return str(libipld.encode_cid(cid))


def parse_cid(text: str) -> bytes:
    """Read a CID from text and accept only the forms the protocol blesses (CB-08, DM-03)."""
    if len(text) != _TEXT_LENGTH or not text.startswith("b") or not text.isascii():
        raise ValueError(f"not a CID of the AT Protocol: {text[:64]!r}")
    try:
        cid = bytes(libipld.decode_multibase(text)[1])
    except ValueError as error:
        raise ValueError(f"not a CID of the AT Protocol: {text!r}") from error
    # Comparing the text again refuses upper case and stray bits in the last character.
    if not is_blessed(cid) or format_cid(cid) != text:
        raise ValueError(f"not a CID of the AT Protocol: {text!r}")
    return cid


def is_cid_syntax(text: str) -> bool:
    """Tell whether text could be some CID, of any base and hash (SX-17: not for links)."""
    return _ANY_CID.fullmatch(text) is not None and not text.startswith("Qmb")
