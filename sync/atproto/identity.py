"""Read DID documents: who signs, where the repo lives, which handle is claimed (IN-04..06)."""

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from sync.atproto import keys
from sync.atproto.syntax import is_did, is_handle
from sync.errors import IdentityError, ProtocolError

# Honest documents have some 1 kB.
MAX_DOCUMENT_BYTES = 262_144

_PDS_TYPE = "AtprotoPersonalDataServer"
_ENDPOINT = re.compile(
    r"(https?)://([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?/?"
)
_DEFAULT_PORT = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class DidDocument:
    """What the protocol needs of a DID document; None where it has no usable entry.

    A document without a key or a PDS is valid, but its account cannot be synchronized (IN-15).
    The handle is only a claim until it resolves back to the DID (IN-07).
    """

    did: str
    handle_claim: str | None
    pds_url: str | None
    signing_key: str | None


def parse_did_document(did: str, body: bytes | dict[str, Any]) -> DidDocument:
    """Read the document that a DID resolved to; raises `IdentityError` if it is not one."""
    document = _parse_json(body) if isinstance(body, bytes) else body
    if not isinstance(document, dict):
        raise IdentityError("malformed", "the DID document is not an object")
    if document.get("id") != did:
        raise IdentityError("malformed", "the DID document is about another DID", rule="IN-04")
    return DidDocument(
        did=did,
        handle_claim=_handle_claim(document),
        pds_url=_pds_url(did, document),
        signing_key=_signing_key(did, document),
    )


def parse_did_documents(body: bytes) -> dict[str, DidDocument]:
    """Read a file of DID documents: an array, an object by DID, one alone, or one a line.

    The last one of an account counts. Raises `IdentityError` if any of them is none.
    """
    documents: dict[str, DidDocument] = {}
    for did, document in _listed(body):
        name = document.get("id") if did is None and isinstance(document, dict) else did
        if not isinstance(name, str) or not is_did(name):
            raise IdentityError("malformed", "a DID document without a DID", rule="IN-04")
        documents[name] = parse_did_document(name, document)
    if not documents:
        raise IdentityError("malformed", "there is none in it")
    return documents


def _listed(body: bytes) -> list[tuple[str | None, Any]]:
    """Return (DID, document) for each of several documents; None where only it names the DID."""
    try:
        content = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        try:
            content = msgspec.json.Decoder().decode_lines(body)
        except (ValueError, RecursionError) as error:
            raise IdentityError("malformed", "neither JSON nor lines of JSON") from error
    if isinstance(content, dict):
        return [(None, content)] if "id" in content else list(content.items())
    if isinstance(content, list):
        return [(None, document) for document in content]
    raise IdentityError("malformed", "neither an object nor an array")


def parse_endpoint(url: str) -> str | None:
    """Return a service endpoint in its one spelling, or None where it is not usable (IN-05).

    Scheme, host and port only; the slash that some documents put at the end is taken off.
    Whether the host may be called is judged when it is called (D-17).
    """
    match = _ENDPOINT.fullmatch(url)
    if match is None or len(url) > 512:
        return None
    scheme, host, port = match.groups()
    if port is not None and not 0 < int(port) < 65536:
        return None
    if port is None or port == _DEFAULT_PORT[scheme]:
        return f"{scheme}://{host.lower()}"
    return f"{scheme}://{host.lower()}:{int(port)}"


def _parse_json(body: bytes) -> Any:
    if len(body) > MAX_DOCUMENT_BYTES:
        raise IdentityError("malformed", "the DID document is too long", rule="IN-13")
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise IdentityError("malformed", "the DID document is not JSON") from error


def _entries(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the maps of a list in the document; anything else counts as absent."""
    entries = document.get(name)
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict)]


def _handle_claim(document: dict[str, Any]) -> str | None:
    """Return the first handle under alsoKnownAs that has the right syntax (IN-06)."""
    aliases = document.get("alsoKnownAs")
    for alias in aliases if isinstance(aliases, list) else ():
        if isinstance(alias, str) and alias.startswith("at://") and is_handle(alias[5:]):
            return alias[5:].lower()
    return None


def _pds_url(did: str, document: dict[str, Any]) -> str | None:
    """Return the endpoint of the first PDS entry; a bad one hides those behind it (IN-05)."""
    for service in _entries(document, "service"):
        is_pds = service.get("id") in ("#atproto_pds", f"{did}#atproto_pds")
        if is_pds and service.get("type") == _PDS_TYPE:
            endpoint = service.get("serviceEndpoint")
            return parse_endpoint(endpoint) if isinstance(endpoint, str) else None
    return None


def _signing_key(did: str, document: dict[str, Any]) -> str | None:
    """Return the first valid signing key as did:key; later ones do not count (SG-05..07)."""
    for method in _entries(document, "verificationMethod"):
        if method.get("id") not in ("#atproto", f"{did}#atproto"):
            continue
        key_type, text = method.get("type"), method.get("publicKeyMultibase")
        if method.get("controller") != did or not isinstance(text, str):
            continue
        try:
            if key_type == "Multikey":
                return keys.parse_multikey(text).did_key
            if isinstance(key_type, str):
                return keys.parse_legacy(key_type, text).did_key
        except ProtocolError:
            continue
    return None
