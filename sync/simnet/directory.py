"""What the PLC directory (and a did:web host) says about each identity."""

from dataclasses import dataclass
from typing import Any, Literal

import base58
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sync.atproto.keys import K256, P256, PublicKey

KeyForm = Literal["multikey", "legacy"]

_CONTEXT = [
    "https://www.w3.org/ns/did/v1",
    "https://w3id.org/security/multikey/v1",
    "https://w3id.org/security/suites/secp256k1-2019/v1",
]
_CURVES: dict[str, tuple[ec.EllipticCurve, str]] = {
    K256: (ec.SECP256K1(), "EcdsaSecp256k1VerificationKey2019"),
    P256: (ec.SECP256R1(), "EcdsaSecp256r1VerificationKey2019"),
}


@dataclass(slots=True)
class Identity:
    """One account's public identity."""

    did: str
    handle: str
    pds_url: str
    key: PublicKey
    is_tombstoned: bool = False


class Directory:
    """Every identity of the simulated network, and the form of keys its documents use."""

    def __init__(self, key_form: KeyForm = "multikey") -> None:
        self.key_form = key_form
        self.identities: dict[str, Identity] = {}

    def document(self, did: str) -> dict[str, Any]:
        """Return the DID document; raises KeyError for an unknown DID."""
        identity = self.identities[did]
        return {
            "@context": _CONTEXT,
            "id": did,
            "alsoKnownAs": [f"at://{identity.handle}"],
            "verificationMethod": [self._method(identity)],
            "service": [
                {
                    "id": "#atproto_pds",
                    "type": "AtprotoPersonalDataServer",
                    "serviceEndpoint": identity.pds_url,
                }
            ],
        }

    def _method(self, identity: Identity) -> dict[str, str]:
        if self.key_form == "multikey":
            return {
                "id": f"{identity.did}#atproto",
                "type": "Multikey",
                "controller": identity.did,
                "publicKeyMultibase": identity.key.multikey,
            }
        # The older form: the type names the curve, the point is bare and uncompressed (SG-06).
        curve, name = _CURVES[identity.key.curve]
        point = ec.EllipticCurvePublicKey.from_encoded_point(curve, identity.key.point)
        bare = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return {
            "id": "#atproto",
            "type": name,
            "controller": identity.did,
            "publicKeyMultibase": "z" + base58.b58encode(bare).decode(),
        }
