"""DID documents: the first usable key, PDS and handle, and nothing that is malformed."""

import json
from typing import Any

import httpx
import pytest

from sync.atproto import keys
from sync.atproto.identity import MAX_DOCUMENT_BYTES, parse_did_document, parse_endpoint
from sync.errors import IdentityError
from sync.http import Reply

DID = "did:plc:7iza6de2dwap2sbkpav7c6c6"
OTHER_DID = "did:plc:" + "a" * 24
KEY = keys.PrivateKey.generate(keys.K256, seed=b"one").public
OTHER = keys.PrivateKey.generate(keys.P256, seed=b"two").public


def method(**changes: Any) -> dict[str, Any]:
    return {
        "id": f"{DID}#atproto",
        "type": "Multikey",
        "controller": DID,
        "publicKeyMultibase": KEY.multikey,
    } | changes


def service(**changes: Any) -> dict[str, Any]:
    return {
        "id": "#atproto_pds",
        "type": "AtprotoPersonalDataServer",
        "serviceEndpoint": "https://pds.example.com",
    } | changes


def document(**changes: Any) -> dict[str, Any]:
    return {
        "id": DID,
        "alsoKnownAs": ["at://alice.example.com"],
        "verificationMethod": [method()],
        "service": [service()],
    } | changes


def test_a_usual_document_gives_key_pds_and_handle() -> None:
    found = parse_did_document(DID, json.dumps(document()).encode())
    assert found.signing_key == KEY.did_key
    assert found.pds_url == "https://pds.example.com"
    assert found.handle_claim == "alice.example.com"
    assert found == parse_did_document(DID, document())


@pytest.mark.rule("IN-04")
def test_a_document_about_another_did_is_refused() -> None:
    with pytest.raises(IdentityError, match="another DID"):
        parse_did_document(DID, document(id=OTHER_DID))


@pytest.mark.rule("IN-14")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"\xff",
        b"null",
        b'{"id": NaN}',
        b"[" * 100_000,
        pytest.param(
            b" " * MAX_DOCUMENT_BYTES + b'{"id": "%s"}' % DID.encode(),
            marks=pytest.mark.rule("IN-13"),
            id="too long",
        ),
    ],
)
def test_a_body_that_is_no_document_is_malformed(body: bytes) -> None:
    with pytest.raises(IdentityError) as caught:
        parse_did_document(DID, body)
    assert caught.value.reason == "malformed"


@pytest.mark.rule("OP-09")
@pytest.mark.parametrize(
    "value",
    [b"1" * 5_000, b"1e400", b'"\\ud800"', b"[" * 5_000 + b"]" * 5_000],
    ids=["5,000 digits", "too large", "surrogate", "5,000 levels"],
)
def test_json_that_python_cannot_hold_is_malformed(value: bytes) -> None:
    body = json.dumps(document()).encode()[:-1] + b', "more": ' + value + b"}"
    with pytest.raises(IdentityError) as caught:
        parse_did_document(DID, body)
    assert caught.value.reason == "malformed"
    assert Reply(200, httpx.Headers(), body).json() is None


@pytest.mark.rule("IN-15")
@pytest.mark.parametrize("value", [None, [], {}, "x", 3, [None, "x", [], {}]])
def test_a_document_without_usable_entries_is_still_a_document(value: object) -> None:
    names = ("alsoKnownAs", "verificationMethod", "service")
    found = parse_did_document(DID, {"id": DID} | dict.fromkeys(names, value))
    assert (found.handle_claim, found.pds_url, found.signing_key) == (None, None, None)
    assert parse_did_document(DID, {"id": DID}) == found


@pytest.mark.rule("SG-05")
@pytest.mark.rule("D-16")
def test_key_ids_count_with_and_without_the_did() -> None:
    for key_id in ("#atproto", f"{DID}#atproto"):
        found = parse_did_document(DID, document(verificationMethod=[method(id=key_id)]))
        assert found.signing_key == KEY.did_key
    others: list[Any] = ["atproto", "#atproto_label", f"{OTHER_DID}#atproto", None, []]
    for other_id in others:
        found = parse_did_document(DID, document(verificationMethod=[method(id=other_id)]))
        assert found.signing_key is None


@pytest.mark.rule("SG-05")
def test_the_first_valid_key_counts_and_later_ones_do_not() -> None:
    unusable = [
        method(id="#other"),
        method(controller=OTHER_DID),
        method(type="JsonWebKey2020"),
        method(type=None),
        method(publicKeyMultibase="zzz"),
        method(publicKeyMultibase=None),
    ]
    methods = [*unusable, method(publicKeyMultibase=OTHER.multikey), method()]
    found = parse_did_document(DID, document(verificationMethod=methods))
    assert found.signing_key == OTHER.did_key


@pytest.mark.rule("SG-06")
@pytest.mark.rule("D-16")
def test_legacy_key_types_are_read() -> None:
    legacy = method(
        type="EcdsaSecp256k1VerificationKey2019",
        publicKeyMultibase="z25z9DTpsiYYJKGsWmSPJK2NFN8PcJtZig12K59UgW7q5t",
    )
    found = parse_did_document(DID, document(verificationMethod=[legacy]))
    assert found.signing_key == "did:key:zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc"


@pytest.mark.rule("IN-05")
def test_the_pds_is_the_first_entry_of_its_id_and_type() -> None:
    services = [
        service(id="#bsky_notif", serviceEndpoint="https://a.example.com"),
        service(type="Other", serviceEndpoint="https://b.example.com"),
        service(id=f"{DID}#atproto_pds", serviceEndpoint="https://c.example.com"),
        service(serviceEndpoint="https://d.example.com"),
    ]
    assert parse_did_document(DID, document(service=services)).pds_url == "https://c.example.com"
    services[2]["serviceEndpoint"] = {"uri": "https://c.example.com"}
    assert parse_did_document(DID, document(service=services)).pds_url is None


@pytest.mark.scenario("A-57")
@pytest.mark.rule("IN-05")
@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://pds.example.com", "https://pds.example.com"),
        ("https://PDS.Example.com/", "https://pds.example.com"),
        ("https://pds.example.com:443", "https://pds.example.com"),
        ("https://pds.example.com:8443", "https://pds.example.com:8443"),
        ("http://localhost:2583", "http://localhost:2583"),
        ("http://[::1]:2583", "http://[::1]:2583"),
        ("https://pds.example.com/path", None),
        ("https://pds.example.com//", None),
        ("https://pds.example.com?x", None),
        ("https://pds.example.com#x", None),
        ("https://user@pds.example.com", None),
        ("https://user:pw@pds.example.com", None),
        ("https://pds.example.com:0", None),
        ("https://pds.example.com:65536", None),
        ("https://pds.example.com\n", None),
        ("https://pds.exämple.com", None),
        ("https://-pds.example.com", None),
        ("https://", None),
        ("ftp://pds.example.com", None),
        ("HTTPS://pds.example.com", None),
        ("pds.example.com", None),
        ("https://" + "a" * 600, None),
    ],
)
def test_endpoints_have_a_scheme_a_host_and_perhaps_a_port(url: str, endpoint: str | None) -> None:
    assert parse_endpoint(url) == endpoint


@pytest.mark.rule("IN-06")
def test_the_first_handle_of_good_syntax_is_the_claim() -> None:
    names = [
        "https://x.example.com",
        "at://",
        3,
        "at://no_handle",
        "at://B.Example.com",
        "at://c.com",
    ]
    assert parse_did_document(DID, document(alsoKnownAs=names)).handle_claim == "b.example.com"
