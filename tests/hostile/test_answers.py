"""Hosts that refuse, send away, or bring what is over: nothing goes because of it."""

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sync.http import AddressPolicy, HttpClient, HttpFailure
from sync.simnet import Account
from sync.simnet.host import Hosted
from sync.simnet.listener import Listener
from sync.simnet.pds import list_page
from tests.hostile.world import HostileWorld, Lie, hostile_world, lie
from tests.integration.rig import NOTE, note

pytestmark = pytest.mark.timeout(120)

Page = Callable[[int], Mapping[str, object]]


# Instead of an export -------------------------------------------------------------------------


def refused(status: int, error: str, reason: str, *, pds: int = 0, **headers: str) -> Lie:
    """Answer the next getRepo with an error."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        fields = {name.replace("_", "-"): text for name, text in headers.items()}
        return web.json_response({"error": error}, status=status, headers=fields)

    def tell(world: HostileWorld, account: Account) -> None:
        world.cause_fetch(account)
        world.serve(account, answer)

    counted = ("sync_differs", f"fetch_{reason}")
    return lie(f"{status} {error}", tell, *counted, is_refetched=True, how={"pds": pds})


def sent_away(name: str, place: Callable[[HostileWorld, Account], str], *reasons: str) -> Lie:
    """Answer the next getRepo with a redirect."""

    def tell(world: HostileWorld, account: Account) -> None:
        async def answer(_request: web.Request) -> web.StreamResponse:
            raise web.HTTPFound(place(world, account))

        world.cause_fetch(account)
        world.serve(account, answer)

    # Whom somebody else redirects to is in trouble as a host: each has one of its own.
    counted = ("sync_differs", *(f"fetch_{reason}" for reason in reasons))
    return lie(name, tell, *counted, is_refetched=True, how={"pds": 1 + len(reasons)})


def stale(name: str, *, behind: int) -> Lie:
    """Serve the export of a mirror that lags."""

    def tell(world: HostileWorld, account: Account) -> None:
        world.cause_fetch(account)
        world.net.serve_stale_export(account.did, commits_behind=behind)

    return lie(
        name,
        tell,
        "sync_differs",
        is_refetched=True,
        may=frozenset(["fetch_stale_export", "chain_break"]),
    )


def at_bystander(world: HostileWorld, _account: Account) -> str:
    """Return where a bystander's repo is."""
    other = world.bystanders[0]
    return f"{other.host.url}/xrpc/com.atproto.sync.getRepo?did={other.did}"


def at_itself(_world: HostileWorld, account: Account) -> str:
    """Return where this came from."""
    return f"{account.host.url}/xrpc/com.atproto.sync.getRepo?did={account.did}"


@pytest.mark.scenario("A-49", "A-55")
@pytest.mark.rule("AC-13", "BF-11", "BF-12", "BF-16", "CA-19", "D-11", "D-19")
async def test_nothing_is_deleted_because_a_host_refuses(clone: str, tmp_path: Path) -> None:
    lies = [
        refused(404, "RepoNotFound", "repo_not_found"),
        refused(400, "RepoNotFound", "repo_not_found"),
        refused(400, "RepoDeactivated", "RepoDeactivated"),
        refused(400, "RepoTakendown", "RepoTakendown"),
        refused(400, "RepoSuspended", "RepoSuspended"),
        refused(403, "Forbidden", "refused"),
        refused(410, "Gone", "refused"),
        refused(429, "RateLimitExceeded", "rate_limited", pds=1, retry_after="1"),
        refused(503, "NotNow", "server_error", pds=1, retry_after="1"),
        sent_away("a redirect to somebody else's repo", at_bystander, "did_mismatch"),
        sent_away("a redirect to where it came from", at_itself),
        stale("an export that lacks what was told", behind=1),
        stale("an export below the stored head", behind=3),
    ]
    async with hostile_world(clone, tmp_path, pds_count=3) as world:
        await world.play(lies)


# Redirects into our own network ---------------------------------------------------------------


@pytest.mark.scenario("A-55")
@pytest.mark.rule("OP-01", "D-17")
@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data", "refused_address"),
        ("https://169.254.169.254/latest/meta-data", "refused_address"),
        ("https://127.0.0.1:8443/", "refused_address"),
        ("https://[::ffff:10.0.0.1]/", "refused_address"),
        ("https://localhost/", "refused_address"),
        ("https://2130706433/", "unreachable"),
        ("https://0177.0.0.1/", "unreachable"),
        ("https://0x7f.1/", "refused_address"),
        ("https://example.com:25/", "refused_address"),
        ("//10.0.0.1/", "refused_address"),
        ("file:///etc/passwd", "refused_address"),
        ("gopher://example.com/", "refused_address"),
    ],
)
async def test_no_hop_leads_into_our_own_network(
    target: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def redirect(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"location": target})

    def build() -> web.Application:
        app = web.Application()
        app.router.add_get("/", redirect)
        return app

    listener = Listener(build, port=0)
    check = AddressPolicy.check_url

    def check_others(policy: AddressPolicy, url: Any) -> None:
        """Take the server that redirects for one on the internet."""
        if str(url).rstrip("/") != listener.url:
            check(policy, url)

    monkeypatch.setattr(AddressPolicy, "check_url", check_others)
    await listener.start()
    try:
        async with HttpClient(user_agent="test") as http:
            with pytest.raises(HttpFailure) as failed:
                await http.get(listener.url, max_bytes=1000, timeout_s=10)
    finally:
        await listener.stop()
    assert failed.value.reason == reason


@pytest.mark.scenario("A-55")
@pytest.mark.rule("OP-01")
async def test_a_name_is_judged_by_the_address_that_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter(["1.1.1.1", "127.0.0.1"])

    async def rebind(_resolver: object, host: str, port: int, family: int) -> list[dict[str, Any]]:
        entry = {"hostname": host, "host": next(answers), "port": port}
        return [{**entry, "family": family, "proto": 0, "flags": 0}]

    monkeypatch.setattr("sync.names.NameResolver.resolve", rebind)
    policy = AddressPolicy(allow_private_hosts=False)
    assert await policy.addresses("rebind.example.com", 443) == ["1.1.1.1"]
    async with HttpClient(user_agent="test") as http:
        with pytest.raises(HttpFailure) as failed:
            await http.get("https://rebind.example.com/", max_bytes=1000, timeout_s=10)
    assert failed.value.reason == "refused_address"


# Lists of repos -------------------------------------------------------------------------------

REV = "3zzzzzzzzzzzz"  # in the year 2255


def entry(did: object, **more: object) -> dict[str, object]:
    """Return a row of listRepos."""
    return {"did": did, "head": "bafy", "rev": REV, "active": True, **more}


def endless(page: int) -> Mapping[str, object]:
    """List accounts that are not there, ten million of them."""
    fakes = [entry(f"did:plc:{page:08d}{number:016d}".translate(FAKE)) for number in range(1000)]
    return {"cursor": f"page {page}", "repos": fakes}


FAKE = str.maketrans("0189", "abcd")
ODD_DIDS: tuple[object, ...] = (
    None,
    7,
    {},
    [],
    "",
    "did:",
    "did:plc:a\0b",
    "did:web:localhost",
    "x" * 100_000,
)
ODD_ROWS: list[object] = [None, 7, "did", [], {}, *(entry(each) for each in ODD_DIDS)]


def odd_rows(_page: int) -> Mapping[str, object]:
    return {"cursor": "1", "repos": ODD_ROWS}


def loop(_page: int) -> Mapping[str, object]:
    return {"cursor": "again", "repos": []}


def circle(page: int) -> Mapping[str, object]:
    return {"cursor": str(page % 7), "repos": []}


def odd_cursor(page: int) -> Mapping[str, object]:
    return {"cursor": ["x", 5, None, "x" * 100_000, {}][page % 5], "repos": []}


def no_list(_page: int) -> Mapping[str, object]:
    return {"repos": "none"}


MAX_PAGES = 40
# How many pages of each are asked for.
PAGES: dict[Page, int] = {
    endless: MAX_PAGES,
    odd_rows: 2,
    loop: 2,
    circle: 8,
    odd_cursor: 2,
    no_list: 1,
}


@pytest.mark.scenario("A-56")
@pytest.mark.rule("BF-17", "BF-18", "CU-09", "AC-09", "D-11")
async def test_a_list_that_lies_hides_nobody_who_fell_behind(
    clone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.gaps.LIST_FROM_REPOS", 1)
    monkeypatch.setattr("sync.gaps.MAX_LIST_PAGES", MAX_PAGES)
    async with hostile_world(clone, tmp_path) as world:
        account = await world.new_account()
        for page, most in PAGES.items():
            asked = count()

            def answer(*_: object, page: Page = page, asked: Iterator[int] = asked) -> object:
                return page(next(asked))

            monkeypatch.setattr("sync.simnet.pds.list_page", answer)
            await find_by_comparison(world, account)
            assert 0 < next(asked) <= most
        query = "select count(*) from sync.repos where did <> all ($1)"
        known = [one.did for one in (*world.bystanders, account)]
        assert await world.rig.conn.fetchval(query, known) == 0
        await world.check_all()


@pytest.mark.scenario("A-56")
@pytest.mark.rule("BF-18", "AC-09", "AC-11", "HO-04", "D-11")
async def test_a_list_hides_nobody_for_long_and_nobody_who_lives_elsewhere(
    clone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.gaps.LIST_FROM_REPOS", 1)
    async with hostile_world(clone, tmp_path, pds_count=2) as world:
        account, other = await world.new_account(pds=1), await world.new_account()
        everybody = [one.did for one in (*world.bystanders, account, other)]
        rows = [entry(did, active=False, status="takendown") for did in everybody]

        def answer(request: web.Request, dids: list[str], accounts: dict[str, Hosted]) -> object:
            """Let one of the hosts say that everybody is taken down."""
            is_lie = account.did in dids
            return {"repos": rows} if is_lie else list_page(request, dids, accounts)

        monkeypatch.setattr("sync.simnet.pds.list_page", answer)
        before = await world.rig.last_change()
        await find_by_comparison(world, other)
        await world.check_healed(account)
        query = "select distinct did from sync.change_log where kind = 'purge' and change_id > $1"
        hidden = await world.rig.conn.fetch(query, before)
        assert {row["did"] for row in hidden} <= {account.did}, "its own host is asked once more"
        await world.check_all()


async def find_by_comparison(world: HostileWorld, account: Account) -> None:
    """Lose a commit that only a comparison with its host can find."""
    world.lose(account, lambda: account.create(NOTE, note("unheard")))
    await world.rig.conn.fetchval("select sync.compare_repos()")
    await world.rig.level(account)
