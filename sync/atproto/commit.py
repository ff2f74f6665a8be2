"""Read, check and make the signed commit object at the root of every repo (CM-09..14)."""

import re
from dataclasses import dataclass
from typing import Any

from sync.atproto import cbor, keys
from sync.atproto.cid import cid_for, is_dag_cbor
from sync.atproto.syntax import is_did, is_tid
from sync.errors import MessageError

VERSION = 3

# The commit as nearly all write it, which thereby is canonical: (unsigned part, DID, rev,
# signature, unsigned part, data). Of any other form is what the codec is asked about.
_USUAL_COMMIT = re.compile(
    rb"\xa6(\x63did\x78\x20(did:plc:[a-z2-7]{24})"
    rb"\x63rev\x6d([2-7a-j][2-7a-z]{12}))"
    rb"\x63sig\x58\x40(.{64})"
    rb"(\x64data\xd8\x2a\x58\x25\x00(\x01\x71\x12\x20.{32})"
    rb"\x64prev\xf6\x67version\x03)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit whose fields are well-formed; nothing says yet who signed it.

    `block` is the signed object as found, `unsigned` the bytes the signature covers: the
    same map without `sig`, unknown fields included (CM-37).
    """

    did: str
    rev: str
    data: bytes
    prev: bytes | None
    block: bytes
    sig: bytes
    unsigned: bytes


def read_commit(block: bytes) -> Commit:
    """Read a commit block and check its form; raises `MessageError` for any other bytes."""
    usual = _USUAL_COMMIT.fullmatch(block)
    if usual is not None:
        start, did, rev, sig, rest, data = usual.groups()
        return Commit(did.decode(), rev.decode(), data, None, block, sig, b"\xa5" + start + rest)
    return _read_commit(block)


def _read_commit(block: bytes) -> Commit:
    try:
        fields = cbor.decode(block)
    except cbor.CborError as error:
        raise MessageError("bad_commit", str(error), rule="CM-38") from error
    if not isinstance(fields, dict):
        raise MessageError("bad_commit", "not a map", rule="CM-09")
    _check_fields(fields)
    unsigned = {name: value for name, value in fields.items() if name != "sig"}
    prev = fields["prev"]
    return Commit(
        did=fields["did"],
        rev=fields["rev"],
        data=bytes(fields["data"]),
        prev=None if prev is None else bytes(prev),
        block=block,
        sig=fields["sig"],
        unsigned=cbor.encode(unsigned),
    )


def check_signature(commit: Commit, key: keys.PublicKey) -> bool:
    """Tell whether the key signed this commit (SG-01..04, SG-12)."""
    return keys.verify(key, commit.sig, commit.unsigned)


def make_commit(
    did: str, rev: str, data: bytes, key: keys.PrivateKey, *, prev: bytes | None = None
) -> tuple[bytes, bytes]:
    """Sign a commit over a tree root; returns its CID and its block."""
    fields: dict[str, Any] = {
        "did": did,
        "version": VERSION,
        "data": cbor.Link(data),
        "rev": rev,
        "prev": None if prev is None else cbor.Link(prev),
    }
    fields["sig"] = key.sign(cbor.encode(fields))
    block = cbor.encode(fields)
    return cid_for(block), block


def _check_fields(fields: dict[str, Any]) -> None:
    """Refuse a commit in which a required field is missing or malformed."""
    missing = {"did", "version", "data", "rev", "prev", "sig"} - fields.keys()
    if missing:
        raise MessageError("bad_commit", f"no field {min(missing)}", rule="CM-09")
    if type(fields["version"]) is not int or fields["version"] != VERSION:
        raise MessageError("bad_commit", "version is not 3", rule="CM-10")
    did, rev = fields["did"], fields["rev"]
    if not isinstance(did, str) or not is_did(did):
        raise MessageError("bad_commit", "did is not a DID", rule="CM-09")
    if not isinstance(rev, str) or not is_tid(rev):
        raise MessageError("bad_commit", "rev is not a TID", rule="CM-13")
    for name in ("data", "prev"):
        link = fields[name]
        if name == "prev" and link is None:
            continue
        if type(link) is not cbor.Link or not is_dag_cbor(link):
            raise MessageError("bad_commit", f"{name} is not a link to a block", rule="CM-14")
    if type(fields["sig"]) is not bytes:
        raise MessageError("bad_commit", "sig is not a byte string", rule="SG-01")
