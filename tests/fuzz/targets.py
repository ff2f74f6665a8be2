"""What must hold for any bytes at all: one check a format that strangers send.

Each check gives bytes to the product and returns whether they were taken. It fails when a promise
is broken: bytes are refused by our own error and nothing else escapes; what is taken is written
again as the same bytes; and a second reader, which shares no code with the first, agrees.
"""

import hashlib
import io
import json
from collections.abc import Callable
from typing import Any

import cbor2

from sync.atproto import cbor, node, records
from sync.atproto.car import Car, CarError, CarReader, read_car, write_car
from sync.atproto.cid import CID_LENGTH, DAG_CBOR_PREFIX, is_blessed
from sync.atproto.envelope import read_item, read_objects
from sync.atproto.frame import peek, read_frame
from sync.atproto.identity import MAX_DOCUMENT_BYTES, parse_did_document, parse_endpoint
from sync.atproto.keys import parse_did_key
from sync.atproto.node import MstError
from sync.atproto.syntax import is_handle
from sync.errors import FramingError, IdentityError, MessageError
from tests.fuzz.second_opinion import NotAllowed, as_json, read_canonical, read_strictly

Check = Callable[[bytes], bool]

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
MAX_BLOCKS = 1_000


def check_cbor(data: bytes) -> bool:
    """Compare the strict gate with cbor2: both take the same bytes, and write them again."""
    try:
        expected = read_strictly(data)
    except NotAllowed:
        expected = NotAllowed
    try:
        value = cbor.decode(data)
    except cbor.CborError:
        value = NotAllowed
    if value is NotAllowed:
        assert expected is NotAllowed, "refused, though canonical and allowed"
        return False
    assert expected is not NotAllowed, "taken, though not canonical or forbidden"
    assert cbor.encode(value) == data
    assert with_tags(value) == expected
    assert cbor.decode_fast(data) == value
    return True


def check_record(data: bytes) -> bool:
    """Compare the JSON of a record with the data model, and turn it back into its bytes."""
    result = records.read_record(data)
    assert (result.value is None) == (result.reason is not None)
    assert result.raw == (None if result.reason in {None, "too_big"} else data)
    try:
        expected = as_json(read_strictly(data))
        is_record = type(expected) is dict and len(data) <= records.MAX_RECORD_BYTES
    except NotAllowed:
        expected, is_record = None, False
    has_nul = _has_nul(expected)
    if result.value is None:
        assert not is_record or (result.reason == "nul") == has_nul, result.reason
        return False
    assert is_record
    assert not has_nul
    value = json.loads(result.value)
    assert value == expected
    assert records.json_to_block(value) == data
    assert records.second_codec_block(value) == data
    return True


def _has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(item) for key, item in value.items())
    if isinstance(value, list):
        return any(map(_has_nul, value))
    return isinstance(value, str) and "\0" in value


def check_frame(data: bytes) -> bool:
    """Read a frame's objects in two ways and its message once, and encode the objects again."""
    try:
        message = read_frame(data)
    except (FramingError, MessageError):
        _check_objects(data)
        return False
    assert _check_objects(data)
    did, seq = peek(data)
    assert did is None or did == getattr(message, "did", did)
    assert seq is None or seq == (getattr(message, "seq", None) or seq)
    return True


def _check_objects(data: bytes) -> bool:
    """Compare the quick reader of objects with the careful one and with cbor2."""
    quick, reason = None, ""
    try:
        quick = read_objects(data)
    except cbor.CborError as error:
        reason = error.reason
    careful: list[Any] = []
    pieces: list[bytes] = []
    at = 0
    try:
        while at < len(data):
            value, end = read_item(data, at)
            careful.append(value)
            pieces.append(data[at:end])
            at = end
    except cbor.CborError:
        assert quick is None, "only the careful reader refuses"
        return False
    if reason == "too_many_items":
        return False
    assert quick == careful
    for value, piece in zip(careful, pieces, strict=True):
        assert cbor2.dumps(with_tags(value), canonical=True) == piece
    return True


def check_car(data: bytes) -> bool:
    """Read a CAR from memory and from a file; try it again with all hashes put right."""
    is_taken = _check_car(data)
    return _check_car(with_true_hashes(data)) or is_taken


def _check_car(data: bytes) -> bool:
    in_memory = _read_in_memory(data)
    assert in_memory == _read_from_file(data)
    if in_memory is None:
        return False
    for cid, block in in_memory.blocks.items():
        assert cid == DAG_CBOR_PREFIX + hashlib.sha256(block).digest()
    root = in_memory.roots[0]
    if is_blessed(root):
        again = write_car(root, in_memory.blocks.items())
        assert read_car(again, max_blocks=MAX_BLOCKS) == Car((root,), in_memory.blocks)
    return True


def _read_in_memory(data: bytes) -> Car | None:
    try:
        return read_car(data, max_blocks=MAX_BLOCKS)
    except CarError:
        return None


def _read_from_file(data: bytes) -> Car | None:
    try:
        reader = CarReader(io.BytesIO(data), max_bytes=len(data), max_blocks=MAX_BLOCKS)
        blocks = {cid: data[at : at + size] for cid, at, size in reader}
    except CarError:
        return None
    return Car(reader.roots, blocks)


def with_true_hashes(data: bytes) -> bytes:
    """Return a CAR in which every digest fits its block, as far as sections can be told apart."""
    fixed = bytearray(data)
    at, end = _section(data, 0)
    while end < len(data):
        at, end = _section(data, end)
        block_at = at + CID_LENGTH
        if block_at <= end and data[at + 2 : at + 4] == b"\x12\x20":
            fixed[at + 4 : block_at] = hashlib.sha256(data[block_at:end]).digest()
    return bytes(fixed)


def _section(data: bytes, at: int) -> tuple[int, int]:
    """Return where the contents of a section begin and end; the end of all, if it is cut."""
    size = shift = 0
    while at < len(data) and shift < 35:
        size |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            break
    return at, min(at + size, len(data))


def check_node(data: bytes) -> bool:
    """Read a tree node in two ways, compare with cbor2, write it again."""
    try:
        found = node.read_node(data)
    except MstError:
        found = None
    usual = node._read_usual(data) if len(data) <= node._USUAL_NODE_BYTES else None
    try:
        careful = node._read_carefully(data)
    except (MstError, IndexError):
        assert usual is None
        assert found is None
        return False
    assert found is not None
    assert found[:3] == careful[:3]
    assert usual is None or usual[:3] == careful[:3]
    assert node.write_node(careful.keys, careful.values, careful.children) == data
    assert found.keys == sorted(set(found.keys))
    assert _fields_of(found) == read_canonical(data)
    for index, link in enumerate(found.children):
        children = [*found.children[:index], None, *found.children[index + 1 :]]
        cut = node.write_node(found.keys, found.values, children)
        assert node.replace_children(found, {index: None}) == cut
        assert (cut == data) == (link is None)
    return True


def _fields_of(found: node.Node) -> dict[str, Any]:
    """Return the node as a general codec reads it."""
    previous = b""
    entries = []
    for key, value, child in zip(found.keys, found.values, found.children[1:], strict=True):
        shared = 0
        while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
            shared += 1
        entries.append({"k": key[shared:], "p": shared, "t": _tagged(child), "v": _tagged(value)})
        previous = key
    return {"e": entries, "l": _tagged(found.children[0])}


def check_document(data: bytes) -> bool:
    """Read a DID document; what was found in it is valid, and the same in a document of its own."""
    try:
        document = parse_did_document(DID, data)
    except IdentityError:
        return False
    assert len(data) <= MAX_DOCUMENT_BYTES
    if document.pds_url is not None:
        assert parse_endpoint(document.pds_url) == document.pds_url
    if document.signing_key is not None:
        assert parse_did_key(document.signing_key).did_key == document.signing_key
    assert document.handle_claim is None or is_handle(document.handle_claim)
    again: dict[str, Any] = {"id": DID, "alsoKnownAs": [], "service": [], "verificationMethod": []}
    if document.handle_claim is not None:
        again["alsoKnownAs"].append(f"at://{document.handle_claim}")
    if document.pds_url is not None:
        kind = {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer"}
        again["service"].append({**kind, "serviceEndpoint": document.pds_url})
    if document.signing_key is not None:
        key = {"id": "#atproto", "type": "Multikey", "controller": DID}
        text = document.signing_key.removeprefix("did:key:")
        again["verificationMethod"].append({**key, "publicKeyMultibase": text})
    assert parse_did_document(DID, json.dumps(again).encode()) == document
    return True


def with_tags(value: Any) -> Any:
    """Return a decoded value as cbor2 has it."""
    if isinstance(value, cbor.Link):
        return _tagged(value)
    if isinstance(value, list):
        return [with_tags(item) for item in value]
    if isinstance(value, dict):
        return {key: with_tags(item) for key, item in value.items()}
    return value


def _tagged(cid: bytes | None) -> cbor2.CBORTag | None:
    return None if cid is None else cbor2.CBORTag(42, b"\0" + cid)


TARGETS: dict[str, Check] = {
    "car": check_car,
    "cbor": check_cbor,
    "document": check_document,
    "frame": check_frame,
    "node": check_node,
    "record": check_record,
}
