"""The resolver against a directory, hosts and handles on loopback."""

import asyncio

import asyncpg
import pytest

from sync.atproto.identity import DidDocument
from sync.errors import IdentityError
from sync.handles import HandleLookup
from sync.http import HttpClient, HttpFailure
from sync.identities import IdentityKeeper
from sync.resolver import FORCED_INTERVAL_S, Identity, Resolver
from sync.simnet import Simnet


def resolver_on(net: Simnet, http: HttpClient) -> Resolver:
    """Return a resolver of a simulated network."""
    handles = HandleLookup(http, base_urls=net.pds_urls, allow_local=True)
    return Resolver(http, plc_url=net.plc_url, handles=handles, allow_local=True)


def client() -> HttpClient:
    """Return a client that may talk to loopback."""
    return HttpClient(user_agent="test", allow_private_hosts=True)


@pytest.mark.rule("IN-01", "IN-02", "IN-03", "IN-05", "IN-06", "IN-07", "IN-09")
@pytest.mark.parametrize("method", ["plc", "web"])
@pytest.mark.parametrize("key_form", ["multikey", "legacy"])
async def test_a_did_resolves_to_host_key_and_verified_handle(method, key_form):
    async with Simnet(seed=61, key_form=key_form) as net, client() as http:
        alice = net.create_account("alice.test", method=method)
        identity = await resolver_on(net, http).resolve(alice.did)
        assert identity.handle == "alice.test"
        assert identity.pds_url == net.pds_urls[0]
        assert identity.signing_key == alice.repo.key.public.did_key


@pytest.mark.rule("IN-07")
async def test_a_handle_that_points_elsewhere_is_invalid():
    async with Simnet(seed=62) as net, client() as http:
        alice, bob = net.create_account("alice.test"), net.create_account("bob.test")
        net.world.directory.identities[alice.did].handle = "bob.test"
        resolver = resolver_on(net, http)
        assert (await resolver.resolve(alice.did)).handle == "handle.invalid"
        assert (await resolver.resolve(bob.did)).handle == "bob.test"
        assert await resolver.find_did("bob.test") == bob.did
        assert await resolver.find_did("nobody.test") is None


@pytest.mark.rule("IN-14")
async def test_unknown_tombstoned_and_unreachable_are_three_things():
    async with Simnet(seed=63) as net, client() as http:
        alice = net.create_account("alice.test")
        alice.delete_account(tombstone=True)
        resolver = resolver_on(net, http)
        with pytest.raises(IdentityError) as gone:
            await resolver.document(alice.did)
        assert gone.value.reason == "tombstoned"
        with pytest.raises(IdentityError) as unknown:
            await resolver.document("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
        assert unknown.value.reason == "not_found"
        await net.stop_server("plc")
        with pytest.raises(IdentityError) as away:
            await resolver.document("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb")
        assert away.value.reason == "transient"
        with pytest.raises(IdentityError) as odd:
            await resolver.document("did:key:zQ3shunBKsXixLxKtC5qeSG9E4J5RkGN57im31pcTzbNQnm5w")
        assert odd.value.reason == "malformed"


@pytest.mark.rule("IN-12")
async def test_many_who_ask_at_once_cause_one_request():
    async with Simnet(seed=64) as net, client() as http:
        alice = net.create_account("alice.test")
        resolver = resolver_on(net, http)
        seen = await asyncio.gather(*(resolver.document(alice.did) for _ in range(50)))
        assert len({id(document) for document in seen}) == 1


@pytest.mark.rule("IN-16")
async def test_a_failed_refresh_keeps_the_good_document():
    async with Simnet(seed=65) as net, client() as http:
        alice = net.create_account("alice.test")
        resolver = resolver_on(net, http)
        good = await resolver.document(alice.did)
        await net.stop_server("plc")
        with pytest.raises(IdentityError):
            await resolver.document(alice.did, max_age_s=0)
        assert await resolver.document(alice.did) == good


class Silent(Resolver):
    """A resolver that gets documents, and no answer to whose a handle is."""

    def __init__(self, document: DidDocument) -> None:
        self.found = document

    async def resolve(self, did: str, *, max_age_s: float = 0.0) -> Identity:
        """Answer without a handle."""
        return Identity(did, None, self.found.pds_url, self.found.signing_key, 0.0)

    def age_s(self, _identity: Identity) -> float:
        """Say that it was looked up now."""
        return 0.0


@pytest.mark.rule("IN-16", "IN-07")
async def test_a_handle_that_nobody_answers_for_stays_what_it_was(ingest, clone):
    did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
    owner = await asyncpg.connect(clone)
    await owner.execute("select sync.track_repos($1)", [did])
    conn = await ingest()
    await conn.execute("select sync.set_identity($1, 'alice.test', 'https://old.test', null)", did)
    document = DidDocument(did, "alice.test", "https://new.test", None)
    await IdentityKeeper(conn, resolver=Silent(document)).store(document, max_age_s=0)
    known = await owner.fetch("select handle, pds_url from sync.repo_status")
    assert [tuple(row) for row in known] == [("alice.test", "https://new.test")]
    await owner.close()


@pytest.mark.rule("SG-09", "MT-08", "HO-02")
async def test_a_refresh_is_forced_once_a_minute_for_each_did():
    now = [0.0]
    async with Simnet(seed=66) as net, client() as http:
        alice = net.create_account("alice.test")
        handles = HandleLookup(http, base_urls=net.pds_urls, allow_local=True)
        resolver = Resolver(
            http,
            plc_url=net.plc_url,
            handles=handles,
            allow_local=True,
            clock=lambda: now[0],
        )
        first = await resolver.refresh(alice.did)
        alice.rotate_key()
        assert await resolver.refresh(alice.did) is first
        now[0] += FORCED_INTERVAL_S + 1
        second = await resolver.refresh(alice.did)
        assert second is not None
        assert second.signing_key == alice.repo.key.public.did_key


@pytest.mark.rule("OP-01", "IN-13", "D-17")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254"])
async def test_without_the_development_switch_loopback_is_refused(host):
    async with HttpClient(user_agent="test") as http:
        with pytest.raises(HttpFailure) as refused:
            await http.get(f"https://{host}:8443/", max_bytes=10, timeout_s=30)
        assert refused.value.reason == "refused_address"
