"""The official signature and key files, on both curves."""

import base64
import json
from pathlib import Path
from typing import Any

import base58
import pytest

from sync.atproto import keys


def _read(folder: Path, name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((folder / "crypto" / name).read_text())
    assert cases
    return cases


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4))


@pytest.mark.rule("SG-01")
@pytest.mark.rule("SG-04")
def test_signatures_are_judged_as_the_fixtures_say(interop: Path) -> None:
    for case in _read(interop, "signature-fixtures.json"):
        key = keys.parse_did_key(case["publicKeyDid"])
        signature, message = _decode(case["signatureBase64"]), _decode(case["messageBase64"])
        assert keys.verify(key, signature, message) is case["validSignature"], case["comment"]


@pytest.mark.rule("SG-06")
@pytest.mark.rule("SG-07")
def test_both_forms_of_a_key_are_the_same_key(interop: Path) -> None:
    for case in _read(interop, "signature-fixtures.json"):
        legacy = keys.parse_legacy(case["didDocSuite"], case["publicKeyMultibase"])
        assert legacy.did_key == case["publicKeyDid"]


@pytest.mark.rule("SG-03")
@pytest.mark.parametrize(
    ("name", "curve"),
    [("w3c_didkey_K256.json", keys.K256), ("w3c_didkey_P256.json", keys.P256)],
)
def test_secrets_belong_to_their_did_keys(interop: Path, name: str, curve: str) -> None:
    for case in _read(interop, name):
        if "privateKeyBytesHex" in case:
            secret = bytes.fromhex(case["privateKeyBytesHex"])
        else:
            secret = base58.b58decode(case["privateKeyBytesBase58"])
        key = keys.PrivateKey(curve, secret)
        assert key.public.did_key == case["publicDidKey"]
        assert keys.verify(keys.parse_did_key(case["publicDidKey"]), key.sign(b"."), b".")
