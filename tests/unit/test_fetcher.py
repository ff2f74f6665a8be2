"""Whose key and host count for a fetch, before and after its download."""

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sync.atproto.identity import DidDocument
from sync.atproto.keys import K256, PrivateKey
from sync.atproto.syntax import make_tid
from sync.config import Settings
from sync.download import FetchError
from sync.errors import ExportError, IdentityError
from sync.fetcher import Claim, Fetcher, FetcherParts
from sync.triage import now_us
from tests.unit.repos import DID, KEY, Change, some_records

NEWER = PrivateKey.generate(K256, seed=b"newer")
CLAIM = Claim(1, DID, "https://old.example.com", None, 1, 1, has_records=False)


class Identities:
    """A directory and what is kept of it: the documents, or the reason why there is none."""

    def __init__(self, key: PrivateKey, *, reason: Any = None) -> None:
        self.found = DidDocument(DID, None, "https://pds.example.com", key.public.did_key)
        self.reason = reason
        self.max_age_s: float | None = None
        self.stored: list[DidDocument] = []

    async def document(self, did: str, *, max_age_s: float = 3600) -> DidDocument:
        """Answer, and remember how old the answer might have been."""
        self.max_age_s = max_age_s
        if self.reason is not None:
            raise IdentityError(self.reason, did)
        return self.found

    async def refresh(self, _did: str) -> DidDocument:
        """Answer past every cache."""
        return self.found

    async def store_if_new(self, document: DidDocument) -> None:
        """Keep a document."""
        self.stored.append(document)


def fetcher_with(identities: Identities) -> Fetcher:
    parts = SimpleNamespace(
        resolver=identities, keeper=identities, settings=Settings(), control=None, conn=None
    )
    return Fetcher(cast("FetcherParts", parts))


def export_signed_by(key: PrivateKey) -> io.BytesIO:
    records = some_records(range(3))
    rev = make_tid(now_us() - 1_000_000, 0)
    return io.BytesIO(Change(records, records, rev=rev, key=key).export())


@pytest.mark.rule("IN-01", "HO-06", "D-18")
async def test_a_repo_is_fetched_from_where_its_document_says_now():
    identities = Identities(KEY)
    document = await fetcher_with(identities)._resolve(CLAIM)
    assert document.pds_url == "https://pds.example.com"
    assert identities.max_age_s == 0
    assert identities.stored == [document]


@pytest.mark.rule("AC-14", "FA-12", "IN-14", "IN-16")
@pytest.mark.parametrize(
    ("reason", "status"),
    [("tombstoned", "deleted"), ("not_found", None), ("transient", None), ("malformed", None)],
)
async def test_of_all_failures_only_a_tombstone_says_something_of_the_account(reason, status):
    identities = Identities(KEY, reason=reason)
    with pytest.raises(FetchError, match=f"identity_{reason}") as caught:
        await fetcher_with(identities)._resolve(CLAIM)
    assert caught.value.account_status == status
    assert identities.stored == []


@pytest.mark.rule("SG-08", "CA-19")
async def test_an_export_that_a_newer_key_signed_is_verified_by_it():
    identities = Identities(NEWER)
    fetcher = fetcher_with(identities)
    export = await fetcher._verify(CLAIM, KEY.public.did_key, export_signed_by(NEWER))
    assert len(export.leaves) == 3
    assert identities.stored == [identities.found]
    with pytest.raises(ExportError, match="bad_signature"):
        await fetcher._verify(CLAIM, NEWER.public.did_key, export_signed_by(KEY))
