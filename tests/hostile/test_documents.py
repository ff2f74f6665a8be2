"""DID documents that name too much, the wrong things, or are none (A-57)."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sync.atproto.keys import K256, PrivateKey
from sync.atproto.syntax import INVALID_HANDLE
from sync.simnet import Account
from sync.simnet.directory import Directory
from tests.hostile.world import HostileWorld, Lie, hostile_world, lie
from tests.integration.rig import NOTE, note

pytestmark = pytest.mark.timeout(120)

Document = dict[str, Any]
Edit = Callable[[HostileWorld, Account, Document], object]
Then = Callable[[HostileWorld, Account], None]
STRANGER = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
OTHER_KEY = PrivateKey.generate(K256, seed=b"liar").public


class Documents:
    """What the directory says of some DIDs instead of the truth."""

    def __init__(self, directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
        self._honest = directory.document
        self._edits: dict[str, Callable[[Document], object]] = {}
        self.asked: dict[str, int] = {}
        monkeypatch.setattr(directory, "document", self._document)

    def _document(self, did: str) -> Document:
        document = self._honest(did)
        if did in self._edits:
            self.asked[did] = self.asked.get(did, 0) + 1
            self._edits[did](document)
        return document

    def edit(self, did: str, edit: Callable[[Document], object]) -> None:
        """Change every document of a DID before it is sent."""
        self._edits[did] = edit

    def mend(self, did: str) -> None:
        """Send the honest document again."""
        self._edits.pop(did, None)


class Ledger:
    """The lies about documents; each is told before and after which the honest one counts."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def ignored(self, name: str, edit: Edit, **more: Any) -> Lie:
        """Tell of a document that is as good as the honest one."""
        return lie(name, self._tell(edit, commit), ignored="it says the same", **more)

    def kept(self, name: str, edit: Edit, *reasons: str, **more: Any) -> Lie:
        """Tell of what is no document: what was known before is kept (IN-16)."""
        return lie(name, self._tell(edit, commit), *reasons, heal=self._mend, **more)

    def without_host(self, name: str, url: object) -> Lie:
        """Tell of a document with a PDS that nobody may be sent to."""

        def edit(_world: HostileWorld, _account: Account, document: Document) -> None:
            document["service"][0]["serviceEndpoint"] = url

        tell = self._tell(edit, lose_commit)
        reasons = ("sync_differs", "fetch_no_pds")
        return lie(name, tell, *reasons, heal=self._mend, is_refetched=None)

    def with_other_key(self, name: str, edit: Edit) -> Lie:
        """Tell of a document in which another key comes first."""
        reasons = ("bad_signature",)
        may = frozenset(["fetch_bad_signature", "chain_break"])

        async def tell(world: HostileWorld, account: Account) -> None:
            await self._tell(edit, lambda *_: None)(world, account)
            await world.rig.until(partial(has_other_key, world, account))
            commit(world, account)

        return lie(name, tell, *reasons, heal=self._mend, is_refetched=None, may=may)

    def handle_of_other(self) -> Lie:
        """Tell of a document that claims a bystander's handle."""

        def edit(world: HostileWorld, _account: Account, document: Document) -> None:
            document["alsoKnownAs"] = [f"at://{world.bystanders[0].handle}"]

        async def check(world: HostileWorld, account: Account) -> None:
            await world.rig.until(partial(has_handle, world, account, INVALID_HANDLE))
            owner = world.bystanders[0]
            assert await has_handle(world, owner, owner.handle)
            self._mend(world, account)
            await world.rig.until(partial(has_handle, world, account, account.handle))

        tell = self._tell(edit, commit)
        return lie("somebody else's handle", tell, ignored="handle.invalid is shown", heal=check)

    def gone(self) -> Lie:
        """Tell that a DID was given up, which was a mistake."""

        def edit(_world: HostileWorld, _account: Account, _document: Document) -> None:
            raise web.HTTPGone

        async def heal(world: HostileWorld, account: Account) -> None:
            await world.rig.until(partial(is_purged, world, account))
            self._documents.mend(account.did)
            account.emit_account()
            account.emit_identity()
            account.emit_sync()

        tell = self._tell(edit, lambda *_: None)
        may = frozenset(["fetch_identity_tombstoned"])
        return lie(
            "a tombstone", tell, "identity_tombstoned", is_refetched=None, heal=heal, may=may
        )

    def _tell(self, edit: Edit, then: Then) -> Callable[..., Awaitable[None]]:
        async def tell(world: HostileWorld, account: Account) -> None:
            self._documents.edit(account.did, partial(edit, world, account))
            account.emit_identity()
            await world.rig.until(partial(self._is_asked, account.did))
            then(world, account)

        return tell

    async def _is_asked(self, did: str) -> bool:
        return self._documents.asked.get(did, 0) > 0

    def _mend(self, _world: HostileWorld, account: Account) -> None:
        self._documents.mend(account.did)
        account.emit_identity()
        account.create(NOTE, note("honest again"), rkey="honest")


def commit(_world: HostileWorld, account: Account) -> None:
    """Write while the document says something else."""
    account.create(NOTE, note("meanwhile"), rkey="meanwhile")


def lose_commit(world: HostileWorld, account: Account) -> None:
    """Write what only a fetch can bring."""
    world.cause_fetch(account)


async def has_other_key(world: HostileWorld, account: Account) -> bool:
    """Tell whether the liar's key is taken for the account's."""
    query = "select signing_key = $2 from sync.repos where did = $1"
    return bool(await world.rig.conn.fetchval(query, account.did, OTHER_KEY.did_key))


async def has_handle(world: HostileWorld, account: Account, handle: str) -> bool:
    """Tell whether an account is shown under a handle."""
    query = "select handle from sync.repo_status where did = $1"
    return bool(await world.rig.conn.fetchval(query, account.did) == handle)


# What is added to a document, or changed in it ------------------------------------------------


def add_methods(before: bool, **changes: Any) -> Edit:
    """Add a key before the honest one or behind it."""

    def edit(_world: HostileWorld, account: Account, document: Document) -> None:
        methods = document["verificationMethod"]
        other = {**methods[0], "publicKeyMultibase": OTHER_KEY.multikey, **changes}
        methods.insert(0 if before else 1, other)

    return edit


def use_legacy_key(_world: HostileWorld, account: Account, document: Document) -> None:
    identity = account.world.directory.identities[account.did]
    document["verificationMethod"] = [Directory("legacy")._method(identity)]


def add_handles(_world: HostileWorld, account: Account, document: Document) -> None:
    document["alsoKnownAs"] += ["at://second.test", "https://example.com", 7]
    document["alsoKnownAs"].insert(0, "at://not a handle")


def add_services(_world: HostileWorld, _account: Account, document: Document) -> None:
    other = {**document["service"][0], "serviceEndpoint": "https://10.0.0.1"}
    document["service"] = [{**other, "id": "#labeler"}, *document["service"], other, None]


def other_id(_world: HostileWorld, _account: Account, document: Document) -> None:
    document["id"] = STRANGER


def no_id(_world: HostileWorld, _account: Account, document: Document) -> None:
    del document["id"]


def fill(_world: HostileWorld, _account: Account, document: Document) -> None:
    document["padding"] = "x" * 10_000_000


HOSTS = {
    "a PDS with a path": "https://pds.example.com/xrpc",
    "a PDS with a user": "https://user:password@pds.example.com",
    "a PDS with a query": "https://pds.example.com?did=x",
    "a PDS of another scheme": "file:///etc/passwd",
    "a PDS that is a list": ["https://pds.example.com"],
    "a PDS with a port that is none": "https://pds.example.com:99999",
}


@pytest.mark.scenario("A-57")
@pytest.mark.rule("IN-02", "IN-04", "IN-05", "IN-06", "IN-07", "IN-13", "IN-14", "IN-15", "IN-16")
@pytest.mark.rule("SG-05", "SG-06", "SG-08")
async def test_no_document_takes_an_account_away(
    clone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hostile_world(clone, tmp_path) as world:
        ledger = Ledger(Documents(world.net.world.directory, monkeypatch))
        await world.play(
            [
                ledger.ignored("a second key", add_methods(before=False)),
                ledger.ignored(
                    "a key of another controller", add_methods(before=True, controller=STRANGER)
                ),
                ledger.ignored(
                    "a key that is none", add_methods(before=True, publicKeyMultibase="zzz")
                ),
                ledger.ignored("a key under another name", add_methods(before=True, id="#other")),
                ledger.ignored("a legacy key", use_legacy_key),
                ledger.ignored("odd handles", add_handles),
                ledger.ignored("more services", add_services),
                ledger.kept("another id", other_id, "identity_malformed"),
                ledger.kept("no id", no_id, "identity_malformed"),
                ledger.kept("a document of 10 MB", fill, "identity_malformed"),
                ledger.with_other_key("another key before", add_methods(before=True)),
                ledger.handle_of_other(),
                *(ledger.without_host(name, url) for name, url in HOSTS.items()),
            ]
        )


# Answers without a document -------------------------------------------------------------------


def trouble(status: int, *reasons: str, times: int) -> Lie:
    """Have the directory answer with a status when an identity is looked up."""

    async def tell(world: HostileWorld, account: Account) -> None:
        world.net.fail_next(account.did, status=status, times=times)
        account.emit_identity()
        await world.rig.until(partial(is_counted, world, account, reasons[0]))
        commit(world, account)

    name = f"{times} times {status}"
    # A lane that has asked often lately does not ask for this one.
    return lie(name, tell, *reasons, is_refetched=None, may=frozenset({"no_key"}))


async def is_counted(world: HostileWorld, account: Account, reason: str) -> bool:
    """Tell whether a reason was counted for an account."""
    return reason in await world.problems(account)


async def is_purged(world: HostileWorld, account: Account) -> bool:
    """Tell whether an account counts as deleted and nothing of it is stored."""
    query = (
        "select r.account_status = 'deleted' and not exists (select from sync.stored_records s"
        " where s.repo_id = r.repo_id) from sync.repos r where did = $1"
    )
    return bool(await world.rig.conn.fetchval(query, account.did))


@pytest.mark.scenario("A-57")
@pytest.mark.rule("IN-02", "IN-14", "IN-16", "AC-14", "D-16")
async def test_only_a_tombstone_takes_an_account_away(
    clone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hostile_world(clone, tmp_path) as world:
        await world.play(
            [
                trouble(500, "identity_transient", times=1),
                trouble(503, "identity_transient", times=2),
                trouble(429, "identity_transient", times=1),
                trouble(404, "identity_not_found", times=1),
                Ledger(Documents(world.net.world.directory, monkeypatch)).gone(),
            ]
        )
