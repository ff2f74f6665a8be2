"""Read public keys in every form the protocol knows, verify and make signatures (rules SG-*).

A signature is 64 raw bytes, r then s, over the SHA-256 of a message. Both libraries below
would let something through (`cryptography` a high s, both a DER form), so length, range and
the low half of s are checked here, before either is asked.
"""

import functools
import hashlib
import secrets
from dataclasses import dataclass
from typing import Protocol

import base58
import coincurve
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sync.errors import ProtocolError

P256 = "p256"
K256 = "k256"

SIGNATURE_LENGTH = 64
DID_KEY_PREFIX = "did:key:"

# Parsing costs as much as verifying. A K-256 key takes 0.9 kB here, a P-256 key 3 kB.
_CACHED_KEYS = 32_768

_CURVE_BY_CODEC = {b"\x80\x24": P256, b"\xe7\x01": K256}
_CODEC_BY_CURVE = {curve: codec for codec, curve in _CURVE_BY_CODEC.items()}
_CURVE_BY_LEGACY_TYPE = {
    "EcdsaSecp256r1VerificationKey2019": P256,
    "EcdsaSecp256k1VerificationKey2019": K256,
}
_ORDER = {
    P256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    K256: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
}
_ECDSA = ec.ECDSA(hashes.SHA256())
_LONGEST_MULTIBASE = 128


class _Verifier(Protocol):
    """Check a DER signature of a message; the curve's library is behind it."""

    def __call__(self, signature: bytes, message: bytes, /) -> bool: ...


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A parsed signing key: its curve and its compressed point of 33 bytes."""

    curve: str
    point: bytes

    @property
    def multikey(self) -> str:
        """Return the Multikey text that stands in DID documents (SG-07)."""
        return "z" + base58.b58encode(_CODEC_BY_CURVE[self.curve] + self.point).decode()

    @property
    def did_key(self) -> str:
        """Return the `did:key:z…` form, the one that is stored."""
        return DID_KEY_PREFIX + self.multikey


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A signing key, for the simulated network and for tests."""

    curve: str
    secret: bytes

    @classmethod
    def generate(cls, curve: str, *, seed: bytes | None = None) -> "PrivateKey":
        """Make a new key; the same seed always gives the same key."""
        if seed is None:
            seed = secrets.token_bytes(32)
        number = int.from_bytes(hashlib.sha512(curve.encode() + b":" + seed).digest(), "big")
        return cls(curve, (number % (_ORDER[curve] - 1) + 1).to_bytes(32, "big"))

    @property
    def public(self) -> PublicKey:
        """Return the key that verifies what this one signs."""
        if self.curve == K256:
            return PublicKey(K256, coincurve.PrivateKey(self.secret).public_key.format())
        return PublicKey(P256, _compress(_p256_private(self.secret).public_key()))

    def sign(self, message: bytes) -> bytes:
        """Sign a message: deterministic, 64 bytes, s in the lower half."""
        if self.curve == K256:
            der = coincurve.PrivateKey(self.secret).sign(message)
        else:
            algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
            der = _p256_private(self.secret).sign(message, algorithm)
        r, s = decode_dss_signature(der)
        s = min(s, _ORDER[self.curve] - s)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@functools.lru_cache(maxsize=_CACHED_KEYS)
def parse_multikey(text: str) -> PublicKey:
    """Read a Multikey: `z`, base58btc of two codec bytes and a compressed point (SG-07)."""
    raw = _decode_multibase(text)
    curve = _CURVE_BY_CODEC.get(raw[:2])
    if curve is None:
        raise ProtocolError("bad_key", "neither a P-256 nor a K-256 key", rule="SG-07")
    if len(raw) != 35:
        raise ProtocolError("bad_key", "not a compressed point", rule="SG-07")
    return _checked(curve, raw[2:])


def parse_did_key(text: str) -> PublicKey:
    """Read a key in its `did:key:z…` form."""
    if not text.startswith(DID_KEY_PREFIX):
        raise ProtocolError("bad_key", "does not start with did:key:", rule="SG-07")
    return parse_multikey(text.removeprefix(DID_KEY_PREFIX))


def parse_legacy(key_type: str, text: str) -> PublicKey:
    """Read the older forms: the type names the curve, base58btc holds the bare point (SG-06)."""
    curve = _CURVE_BY_LEGACY_TYPE.get(key_type)
    if curve is None:
        raise ProtocolError("bad_key", f"unknown key type {key_type[:64]!r}", rule="SG-06")
    return _checked(curve, _decode_multibase(text))


def verify(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Tell whether the key signed the message; anything but 64 bytes with low s is a no."""
    if len(signature) != SIGNATURE_LENGTH:
        return False
    order = _ORDER[key.curve]
    r = int.from_bytes(signature[:32], "big")
    s = int.from_bytes(signature[32:], "big")
    if not (0 < r < order and 0 < s <= order // 2):
        return False
    return _verifier(key)(encode_dss_signature(r, s), message)


@functools.lru_cache(maxsize=_CACHED_KEYS)
def _verifier(key: PublicKey) -> _Verifier:
    """Hand the point to its curve's library once and keep what it made of it."""
    if key.curve == K256:
        return coincurve.PublicKey(key.point).verify
    p256 = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key.point)

    def verify_p256(signature: bytes, message: bytes, /) -> bool:
        try:
            p256.verify(signature, message, _ECDSA)
        except InvalidSignature:
            return False
        return True

    return verify_p256


def _checked(curve: str, point: bytes) -> PublicKey:
    """Return the key with a compressed point, if the point is on the curve."""
    try:
        if curve == K256:
            return PublicKey(K256, coincurve.PublicKey(point).format())
        p256 = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ProtocolError("bad_key", "not a point of its curve", rule="SG-07") from error
    return PublicKey(P256, _compress(p256))


def _compress(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def _p256_private(secret: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256R1())


def _decode_multibase(text: str) -> bytes:
    """Decode base58btc behind its `z`; base58 is quadratic, so the length is bounded."""
    if not text.startswith("z") or len(text) > _LONGEST_MULTIBASE or not text.isascii():
        raise ProtocolError("bad_key", "not base58btc with a z", rule="SG-07")
    try:
        return base58.b58decode(text[1:])
    except ValueError as error:
        raise ProtocolError("bad_key", "not base58btc", rule="SG-07") from error
