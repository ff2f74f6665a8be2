"""Eighteen situations of a real network: the same things happen as in scenarios.mjs.

A situation plays with one account and returns it as it is at the end. What has to be seen on the
way is asked of the stage, which only looks when nothing is lost or doubled.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pytest

from tests.network import deeds
from tests.network.content import NOTE, POST, hard_content, hard_content_without_nul, note, post
from tests.network.harness import (
    Account,
    Network,
    XrpcError,
    create_write,
    delete_write,
    update_write,
)

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
BIG = "com.example.big"
LARGE_TEXT = "y" * 140_000
# More than the sockets between a PDS and its reader hold, and then more than the PDS keeps.
LARGE_RECORDS, EMITTED = 60, 70
DAY_MS = 86_400_000


class Stage(Protocol):
    """What a situation can do beside what owners and administrators do."""

    @property
    def network(self) -> Network:
        """Return the network."""

    def look(self, account: Account, *, status: str | None) -> None:
        """Wait until every service shows or hides an account, with its host's word for why."""

    def look_for_problem(self, account: Account, reason: str) -> None:
        """Wait until every service has refused something of an account."""

    def create_account(self) -> Account:
        """Create an account that is tracked before the services hear of it."""

    def new_name(self) -> str:
        """Return a name that no account has."""

    def look_for_key(self, account: Account, key: str) -> None:
        """Wait until every service knows a signing key."""

    def pause(self) -> None:
        """Wait until the services have applied what was told until now."""

    def wait_for_comparison(self, account: Account) -> None:
        """Wait until every gap is closed and an account is synchronized again."""

    def stop_services(self) -> None:
        """Stop every service."""

    def start_services(self) -> None:
        """Start every service again, at its cursors."""

    def forget_replay(self) -> None:
        """Empty every replay window: each cursor is outdated."""

    def keep_replay(self) -> None:
        """Keep events again."""

    def start_services_in_future(self) -> None:
        """Start the services with cursors that the hosts never reached, and do as they say."""

    def stall(self) -> None:
        """Let nobody read the hosts."""

    def go_on(self) -> None:
        """Let everybody read again; who was too slow has been given up."""

    def settle(self) -> None:
        """Wait until the services have applied everything that was told."""


@dataclass(frozen=True, slots=True)
class Situation:
    """One of them, and how the account is meant to be at the end."""

    name: str
    play: Callable[[Stage, Account], Account]
    status: str | None = None
    # Another key signs: who has missed that meets it with the next commit.
    has_new_key: bool = False
    # It stops what others need, or makes its own account.
    is_alone: bool = False


def create_account(stage: Stage, _: Account) -> Account:
    account = stage.create_account()
    stage.network.create_record(account, POST, post("the first one"))
    return account


def create_update_delete(stage: Stage, account: Account) -> Account:
    network, key = stage.network, "self-made"
    first = network.create_record(account, NOTE, note("1"), rkey=key)
    for text in ("2", "3", "3"):  # the last one changes nothing and is no event
        network.put_record(account, NOTE, note(text), rkey=key)
    network.delete_record(account, NOTE, rkey=key)
    network.delete_record(account, NOTE, rkey=key)  # is no event either
    swap = {"repo": account.did, "collection": NOTE, "record": note("4")}
    with pytest.raises(XrpcError, match="InvalidSwap"):
        network.xrpc(
            account.pds,
            "com.atproto.repo.createRecord",
            swap | {"swapCommit": first["commit"]["cid"]},
            account.access_token,
        )
    for record in (hard_content(first["cid"]), hard_content_without_nul(first["cid"])):
        network.create_record(account, NOTE, record)
    network.create_record(account, "org.example.other", note("x", collection="org.example.other"))
    network.create_record(account, NOTE, {"$type": NOTE, "text": LARGE_TEXT})
    return account


def apply_writes(stage: Stage, account: Account) -> Account:
    network = stage.network
    network.apply_writes(account, [create_write(NOTE, f"n{n}", note(str(n))) for n in range(50)])
    network.apply_writes(
        account,
        [
            create_write(NOTE, "x1", note("x")),
            update_write(NOTE, "n3", note("changed")),
            delete_write(NOTE, "n4"),
        ],
    )
    network.apply_writes(
        account, [create_write(NOTE, "n900", note("900")), delete_write(NOTE, "n900")]
    )
    many = [create_write(NOTE, f"n{n}", note(str(n))) for n in range(1000, 1200)]
    network.apply_writes(account, many)
    with pytest.raises(XrpcError, match="Too many writes"):
        network.apply_writes(account, [*many, many[0]])
    network.apply_writes(account, [delete_write(NOTE, f"n{n}") for n in range(1000, 1100)])
    return account


def deactivate_reactivate(stage: Stage, account: Account) -> Account:
    deeds.deactivate(stage.network, account)
    stage.look(account, status="deactivated")
    with pytest.raises(XrpcError, match="AccountDeactivated"):
        stage.network.create_record(account, POST, post("while deactivated"))
    deeds.activate(stage.network, account)
    return account


def takedown(stage: Stage, account: Account) -> Account:
    network = stage.network
    deeds.set_takedown(network, account, applied=True)
    stage.look(account, status="takendown")
    deeds.set_takedown(network, account, applied=False)
    stage.look(account, status=None)
    deeds.set_takedown(network, account, applied=True)
    deeds.set_deactivated(network, account, applied=True)
    stage.look(account, status="takendown")
    deeds.set_takedown(network, account, applied=False)
    stage.look(account, status="deactivated")
    deeds.set_deactivated(network, account, applied=False)
    return account


def handle_change(stage: Stage, account: Account) -> Account:
    deeds.change_handle(stage.network, account, name=stage.new_name())
    name = stage.new_name()
    account = deeds.give_handle(stage.network, account, name=name)
    return deeds.change_handle(stage.network, account, name=name)  # the one it has


def key_rotation(stage: Stage, account: Account) -> Account:
    stage.network.control("rotate-key", pds=account.pds, did=account.did)
    stage.network.create_record(account, POST, post("signed by the new key"))
    return account


def key_changed_in_plc_only(stage: Stage, account: Account) -> Account:
    network = stage.network
    keys = network.control("set-key", pds=account.pds, did=account.did)
    # The host does not know, so it says nothing; without any hint nobody would look.
    network.control("emit", pds=account.pds, did=account.did, kind="identity")
    stage.look_for_key(account, keys["after"])
    network.create_record(account, POST, post("signed by a key that nobody may know"))
    stage.look_for_problem(account, "bad_signature")
    network.control("set-key", pds=account.pds, did=account.did, key=keys["before"])
    network.create_record(account, POST, post("signed by the key that everybody knows"))
    return account


def import_into_active_repo(stage: Stage, account: Account) -> Account:
    network = stage.network
    older = deeds.export(network, account)
    network.create_record(account, POST, post("is gone after the import"))
    deeds.import_repo(network, account, older)
    deeds.activate(network, account)
    network.create_record(account, POST, post("is written after the import"))
    return account


def resequenced_sync(stage: Stage, account: Account) -> Account:
    for kind in ("sync", "identity", "account"):
        stage.network.control("emit", pds=account.pds, did=account.did, kind=kind)
    return account


def migration(stage: Stage, account: Account) -> Account:
    network = stage.network
    moved = deeds.copy_to(network, account, 1, name=stage.new_name())
    with pytest.raises(XrpcError, match="activateAccount"):
        deeds.activate(network, moved)  # the DID still names the old host
    deeds.move_identity(network, account, moved)
    deeds.activate(network, moved)
    stage.pause()
    deeds.deactivate(network, account)
    # A deletion takes back what the host has not told yet.
    network.control("told", pds=account.pds)
    stage.pause()
    network.create_record(moved, POST, post("first words at the new host"))
    stage.pause()
    deeds.delete_at(network, account)
    return moved


def account_deletion(stage: Stage, account: Account) -> Account:
    deeds.delete_account(stage.network, account)
    return account


def plc_tombstone(stage: Stage, account: Account) -> Account:
    network = stage.network
    network.control("tombstone", pds=account.pds, did=account.did)
    network.create_record(account, POST, post("the host still writes"))
    # Nobody says so; whoever looks the DID up finds it.
    network.control("emit", pds=account.pds, did=account.did, kind="identity")
    return account


def plc_outage(stage: Stage, account: Account) -> Account:
    network = stage.network
    network.control("stop-plc")
    try:
        network.create_record(account, POST, post("while the directory is away"))
        network.create_record(account, POST, post("and again"))
        stage.settle()
    finally:
        network.control("start-plc")
    return account


def cursors(stage: Stage, account: Account) -> Account:
    """Be away: with everything replayed, with nothing replayed, and with a cursor too high."""
    network = stage.network
    stage.stop_services()
    network.create_record(account, NOTE, note("is replayed"), rkey="replayed")
    network.create_record(account, NOTE, note("is replayed too"))
    stage.start_services()
    stage.settle()
    stage.stop_services()
    network.create_record(account, NOTE, note("is found by comparing"), rkey="compared")
    network.delete_record(account, NOTE, rkey="replayed")
    account = deeds.change_handle(network, account, name=stage.new_name())
    stage.forget_replay()
    stage.start_services()
    network.create_record(account, NOTE, note("comes live"))
    stage.settle()
    stage.wait_for_comparison(account)
    stage.keep_replay()
    stage.stop_services()
    network.put_record(account, NOTE, note("comes after the rewind"), rkey="compared")
    stage.start_services_in_future()
    return account


def slow_consumer(stage: Stage, account: Account) -> Account:
    network = stage.network
    stage.stall()
    try:
        for number in range(LARGE_RECORDS):
            network.create_record(account, BIG, {"$type": BIG, "n": number, "big": LARGE_TEXT})
        for _ in range(EMITTED):
            network.control("emit", pds=account.pds, did=account.did, kind="sync")
        network.control("told", pds=account.pds)
    finally:
        stage.go_on()
    return account


def pds_restart(stage: Stage, account: Account) -> Account:
    network = stage.network
    network.create_record(account, POST, post("just before"))
    network.control("stop", pds=account.pds)
    network.control("start", pds=account.pds)
    network.create_record(account, POST, post("right after"))
    return account


def blobs(stage: Stage, account: Account) -> Account:
    network = stage.network
    blob = deeds.upload_blob(network, account, PICTURE)
    record = {
        "$type": "com.example.pic",
        "blob": blob,
        "bytes": {"$bytes": "AAECAw"},
        "link": blob["ref"],
    }
    network.create_record(account, "com.example.pic", record)
    return account


SITUATIONS = (
    Situation("create-account", create_account, is_alone=True),
    Situation("create-update-delete", create_update_delete),
    Situation("apply-writes", apply_writes),
    Situation("deactivate-reactivate", deactivate_reactivate),
    Situation("takedown", takedown),
    Situation("handle-change", handle_change),
    Situation("key-rotation", key_rotation, has_new_key=True),
    Situation("key-changed-in-plc-only", key_changed_in_plc_only, has_new_key=True),
    Situation("import-into-active-repo", import_into_active_repo),
    Situation("resequenced-sync", resequenced_sync),
    Situation("migration-A-to-B", migration, has_new_key=True),
    Situation("account-deletion", account_deletion, status="deleted"),
    Situation("plc-tombstone", plc_tombstone, status="deleted"),
    Situation("plc-outage", plc_outage, is_alone=True),
    Situation("cursors", cursors, is_alone=True),
    Situation("slow-consumer", slow_consumer, is_alone=True),
    Situation("pds-restart", pds_restart, is_alone=True),
    Situation("blobs", blobs),
)
