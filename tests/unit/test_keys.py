"""Keys and signatures: every form of a key, and the one form of a signature."""

import base58
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from sync.atproto import keys
from sync.errors import ProtocolError

CURVES = [keys.P256, keys.K256]
ORDERS = {
    keys.P256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    keys.K256: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
}


def make(curve: str, seed: bytes = b"seed") -> keys.PrivateKey:
    return keys.PrivateKey.generate(curve, seed=seed)


def multibase(raw: bytes) -> str:
    return "z" + base58.b58encode(raw).decode()


@pytest.mark.parametrize("curve", CURVES)
def test_a_seed_makes_one_key_and_one_signature(curve: str) -> None:
    assert make(curve) == make(curve)
    assert make(curve).sign(b"m") == make(curve).sign(b"m")
    assert make(curve) != make(curve, b"other")
    assert keys.PrivateKey.generate(curve) != keys.PrivateKey.generate(curve)


@pytest.mark.rule("SG-02")
@pytest.mark.rule("SG-03")
@pytest.mark.parametrize("curve", CURVES)
def test_only_the_signer_of_the_message_verifies(curve: str) -> None:
    signature = make(curve).sign(b"message")
    assert keys.verify(make(curve).public, signature, b"message")
    assert not keys.verify(make(curve).public, signature, b"massage")
    assert not keys.verify(make(curve, b"other").public, signature, b"message")
    for other in CURVES:
        if other != curve:
            assert not keys.verify(make(other).public, signature, b"message")


@pytest.mark.rule("SG-13")
@pytest.mark.parametrize(
    ("curve", "library"), [(keys.P256, ec.SECP256R1()), (keys.K256, ec.SECP256K1())]
)
def test_every_signature_of_a_message_is_as_good(curve: str, library: ec.EllipticCurve) -> None:
    private = make(curve)
    signer = ec.derive_private_key(int.from_bytes(private.secret, "big"), library)
    made = {private.sign(b"message")}
    for _ in range(3):  # each with a nonce of its own
        r, s = decode_dss_signature(signer.sign(b"message", ec.ECDSA(hashes.SHA256())))
        made.add(r.to_bytes(32, "big") + min(s, ORDERS[curve] - s).to_bytes(32, "big"))
    assert len(made) == 4
    assert all(keys.verify(private.public, signature, b"message") for signature in made)


@pytest.mark.rule("SG-04")
@pytest.mark.parametrize("curve", CURVES)
def test_s_in_the_upper_half_is_refused(curve: str) -> None:
    for number in range(8):
        message = bytes([number])
        signature = make(curve).sign(message)
        s = int.from_bytes(signature[32:], "big")
        assert s <= ORDERS[curve] // 2
        high = signature[:32] + (ORDERS[curve] - s).to_bytes(32, "big")
        assert keys.verify(make(curve).public, signature, message)
        assert not keys.verify(make(curve).public, high, message)


@pytest.mark.rule("SG-01")
@pytest.mark.rule("SG-12")
@pytest.mark.parametrize("curve", CURVES)
def test_odd_signatures_are_a_no_and_never_an_error(curve: str) -> None:
    key, order = make(curve).public, ORDERS[curve]
    good = make(curve).sign(b"m")
    r, s = int.from_bytes(good[:32], "big"), int.from_bytes(good[32:], "big")
    for bad in (
        b"",
        good[:63],
        good + b"\0",
        encode_dss_signature(r, s),
        bytes(64),
        bytes(32) + good[32:],
        good[:32] + bytes(32),
        order.to_bytes(32, "big") + good[32:],
        good[:32] + order.to_bytes(32, "big"),
        b"\xff" * 64,
    ):
        assert not keys.verify(key, bad, b"m")


@pytest.mark.rule("SG-01")
@pytest.mark.parametrize("curve", CURVES)
def test_a_leading_zero_of_s_may_not_be_left_out(curve: str) -> None:
    key = make(curve)
    messages = (number.to_bytes(4, "big") for number in range(20_000))
    message = next(message for message in messages if key.sign(message)[32] == 0)
    signature = key.sign(message)
    assert keys.verify(key.public, signature, message)
    assert not keys.verify(key.public, signature[:32] + signature[33:], message)


@pytest.mark.rule("SG-07", "SG-03")
@pytest.mark.parametrize("curve", CURVES)
def test_a_key_goes_round_through_its_texts(curve: str) -> None:
    public = make(curve).public
    assert public.did_key == "did:key:" + public.multikey
    assert keys.parse_did_key(public.did_key) == public
    assert keys.parse_multikey(public.multikey) == public
    assert len(public.point) == 33


@pytest.mark.rule("SG-06")
@pytest.mark.parametrize(
    ("curve", "key_type"),
    [
        (keys.P256, "EcdsaSecp256r1VerificationKey2019"),
        (keys.K256, "EcdsaSecp256k1VerificationKey2019"),
    ],
)
def test_legacy_keys_hold_the_bare_point_long_or_short(curve: str, key_type: str) -> None:
    public = make(curve).public
    assert keys.parse_legacy(key_type, multibase(long_point(public))) == public
    assert keys.parse_legacy(key_type, multibase(public.point)) == public


_P256_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


def long_point(public: keys.PublicKey) -> bytes:
    """Return a point in the form that is not compressed."""
    x = int.from_bytes(public.point[1:], "big")
    is_k256 = public.curve == keys.K256
    prime = 2**256 - (2**32 + 977 if is_k256 else 2**224 - 2**192 - 2**96 + 1)
    a, b = (0, 7) if is_k256 else (-3, _P256_B)
    y = pow(x**3 + a * x + b, (prime + 1) // 4, prime)
    if y % 2 != public.point[0] % 2:
        y = prime - y
    return b"\x04" + public.point[1:] + y.to_bytes(32, "big")


@pytest.mark.rule("SG-07")
def test_malformed_keys_are_refused() -> None:
    point = make(keys.K256).public.point
    off_curve = b"\x02" + b"\xff" * 32
    for text in (
        "",
        "z",
        "zz0",
        "m" + make(keys.K256).public.multikey[1:],
        "z\u0664",
        "z" + "1" * 10_000,
        multibase(b"\xed\x01" + bytes(32)),  # Ed25519
        multibase(b"\xed\x01" + point),
        multibase(b"\xe7\x01" + point[:-1]),
        multibase(b"\xe7\x01" + point + b"\0"),
        multibase(b"\xe7\x01" + long_point(make(keys.K256).public)),
        multibase(b"\x80\x24" + long_point(make(keys.P256).public)),
        multibase(b"\xe7\x01" + off_curve),
        multibase(b"\x80\x24" + off_curve),
        multibase(b"\x80\x24" + bytes(33)),
    ):
        with pytest.raises(ProtocolError, match="bad_key"):
            keys.parse_multikey(text)
    with pytest.raises(ProtocolError, match="bad_key"):
        keys.parse_did_key(make(keys.K256).public.multikey)
    with pytest.raises(ProtocolError, match="bad_key"):
        keys.parse_legacy("JsonWebKey2020", multibase(point))
    with pytest.raises(ProtocolError, match="bad_key"):
        keys.parse_legacy("EcdsaSecp256k1VerificationKey2019", multibase(off_curve))
