"""Rows of the change log as JSON events."""

import pytest

from sync.changes import change_event

ROW = {
    "position": "3.17",
    "kind": "create",
    "did": "did:plc:ewvi7nxzyoun6zhxrhs64oiz",
    "collection": "com.example.note",
    "rkey": "self",
    "rev": "3jzfcijpj2z2a",
    "cid": "bafyreib",
    "is_live": True,
    "value": {"text": "lorem"},
    "raw": None,
    "reason": None,
}
EMPTY = dict.fromkeys(ROW) | {"position": "3.18", "did": ROW["did"], "is_live": False}


@pytest.mark.parametrize("kind", ["create", "update"])
def test_a_write_has_the_fields_of_tap(kind: str) -> None:
    assert change_event({**ROW, "kind": kind}) == {
        "id": 17,
        "position": "3.17",
        "type": "record",
        "record": {
            "live": True,
            "did": ROW["did"],
            "rev": "3jzfcijpj2z2a",
            "collection": "com.example.note",
            "rkey": "self",
            "action": kind,
            "record": {"text": "lorem"},
            "cid": "bafyreib",
        },
    }


def test_a_delete_has_neither_record_nor_cid() -> None:
    event = change_event({**ROW, "kind": "delete", "value": None, "cid": None})
    assert event["record"]["action"] == "delete"
    assert not {"record", "cid", "raw", "reason"} & event["record"].keys()


def test_what_json_cannot_hold_comes_as_bytes_with_the_reason() -> None:
    event = change_event({**ROW, "value": None, "raw": b"\xa1\x61a\x60", "reason": "nul"})
    assert event["record"]["raw"] == {"$bytes": "oWFhYA"}
    assert event["record"]["reason"] == "nul"
    assert "record" not in event["record"]


def test_a_falsy_value_is_still_a_value() -> None:
    assert change_event({**ROW, "value": {}})["record"]["record"] == {}


def test_an_account_without_a_status_is_active() -> None:
    value = {"active": True, "status": None, "handle": "alice.test"}
    assert change_event({**EMPTY, "kind": "account", "value": value}) == {
        "id": 18,
        "position": "3.18",
        "type": "identity",
        "identity": {
            "did": ROW["did"],
            "handle": "alice.test",
            "is_active": True,
            "status": "active",
        },
    }


def test_an_identity_names_handle_and_pds() -> None:
    value = {"handle": "alice.test", "pds": "https://pds.example.com"}
    row = {**EMPTY, "kind": "identity", "value": {**value, "active": True, "status": None}}
    status = {"is_active": True, "status": "active"}
    assert change_event(row)["identity"] == {"did": ROW["did"], **value, **status}


def test_a_purge_of_everybody_says_so() -> None:
    row = {**EMPTY, "did": None, "kind": "purge", "collection": "com.example.note"}
    assert change_event(row)["purge"] == {"did": None, "collection": "com.example.note"}


def test_a_snapshot_names_the_collection_and_the_rev() -> None:
    row = {**EMPTY, "kind": "snapshot", "collection": "com.example.note", "rev": "3jzfcijpj2z2a"}
    assert change_event(row)["snapshot"] == {
        "did": ROW["did"],
        "collection": "com.example.note",
        "rev": "3jzfcijpj2z2a",
    }
