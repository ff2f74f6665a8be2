"""Find the lexicon of a collection on the network, and believe it only with its proof.

The authority of `app.bsky.feed.post` is the domain `feed.bsky.app`. The TXT record
`_lexicon.feed.bsky.app` names the DID of a repo, and that repo has the lexicon as a record: it is
verified down to its signature, like everything else. What DNS says nobody signs; once a lexicon is
known, it is read again from the same repo.
"""

from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from sync.atproto.cid import format_cid
from sync.atproto.keys import parse_did_key
from sync.atproto.proof import ProvenRecord, prove_record
from sync.atproto.records import read_record
from sync.atproto.syntax import is_nsid
from sync.config import Settings
from sync.errors import BadInput, IdentityError, ProtocolError, UpstreamUnavailable, UsageError
from sync.handles import AmbiguousHandle, LookupUnavailable, TxtLookup, ask_dns, read_txt
from sync.http import HttpClient
from sync.resolver import Resolver
from sync.triage import now_us

LEXICON_SCHEMA = "com.atproto.lexicon.schema"
# The largest record there is, and the nodes that lead to it.
MAX_PROOF_BYTES = 2_000_000
PROOF_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class FoundLexicon:
    """A lexicon as it stood in a repo, the record `cid` (text) at `rev`."""

    nsid: str
    did: str
    cid: str
    rev: str
    lexicon: dict[str, Any]


def authority_name(nsid: str) -> str:
    """Return the name whose TXT record says where an NSID's lexicon is."""
    if not is_nsid(nsid):
        raise UsageError(f"{nsid!r} is not the NSID of a collection, like app.bsky.feed.post.")
    return "_lexicon." + ".".join(reversed(nsid.split(".")[:-1])).lower()


async def find_lexicon(
    settings: Settings, nsid: str, *, did: str | None = None, ask_txt: TxtLookup = ask_dns
) -> FoundLexicon:
    """Return the lexicon of a collection, from the repo `did` or from the one that DNS names."""
    name = authority_name(nsid)
    if did is None:
        did = await _ask_authority(name, ask_txt)
    async with HttpClient(
        user_agent=settings.user_agent, allow_private_hosts=settings.allow_private_hosts
    ) as http:
        resolver = Resolver.from_settings(http, settings)
        try:
            proven = await _fetch_proof(http, resolver, did, f"{LEXICON_SCHEMA}/{nsid}")
        except ProtocolError as error:
            raise BadInput(f"The lexicon of {nsid} in {did} does not verify ({error}).") from error
        finally:
            await resolver.aclose()
    if proven.block is None or proven.cid is None:
        raise BadInput(f"{did} has no lexicon of {nsid}: give it with --lexicon FILE.")
    lexicon = read_lexicon(nsid, proven.block)
    return FoundLexicon(nsid, did, format_cid(proven.cid), proven.rev, lexicon)


def read_lexicon(nsid: str, block: bytes) -> dict[str, Any]:
    """Read the record of a lexicon and see that it is the one of this NSID."""
    text = read_record(block).value
    lexicon = None if text is None else msgspec.json.decode(text)
    if not isinstance(lexicon, dict) or lexicon.get("id") != nsid:
        raise BadInput(f"The record {LEXICON_SCHEMA}/{nsid} is not the lexicon of {nsid}.")
    return lexicon


async def _ask_authority(name: str, ask_txt: TxtLookup) -> str:
    hint = "give the lexicon with --lexicon FILE, or the repo that has it with --did DID"
    try:
        did = read_txt(await ask_txt(f"{name}."))
    except AmbiguousHandle as error:
        raise BadInput(f"The TXT record {name} names several DIDs: {hint}.") from error
    except LookupUnavailable as error:
        raise UpstreamUnavailable(f"DNS does not answer for {name} ({error}): {hint}.") from error
    if did is None:
        raise BadInput(f"No TXT record {name} says where the lexicon is: {hint}.")
    return did


async def _fetch_proof(http: HttpClient, resolver: Resolver, did: str, path: str) -> ProvenRecord:
    """Ask the account's PDS for a record, and check the proof that comes with it."""
    try:
        document = await resolver.document(did)
    except IdentityError as error:
        if error.reason == "transient":
            raise UpstreamUnavailable(f"{did} cannot be resolved now ({error}).") from error
        raise BadInput(f"{did} does not resolve ({error}).") from error
    if document.pds_url is None or document.signing_key is None:
        raise BadInput(f"The DID document of {did} names no PDS or no signing key.")
    collection, _, rkey = path.partition("/")
    reply = await http.get(
        f"{document.pds_url}/xrpc/com.atproto.sync.getRecord",
        params={"did": did, "collection": collection, "rkey": rkey},
        max_bytes=MAX_PROOF_BYTES,
        timeout_s=PROOF_TIMEOUT_S,
    )
    if reply.error_name() == "RecordNotFound":
        raise BadInput(f"{did} has no record {path}, says its PDS.")
    if reply.status != httpx.codes.OK:
        said = f"{reply.status} {reply.error_name()}".strip()
        raise UpstreamUnavailable(f"The PDS of {did} answers {said!r} for {path}.")
    key = parse_did_key(document.signing_key)
    return prove_record(reply.body, did=did, key=key, path=path, now_us=now_us())
