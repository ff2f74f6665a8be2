"""The HTTP side of one simulated PDS."""

import asyncio
import json
from typing import Any

from aiohttp import web

from sync.atproto.cid import format_cid
from sync.atproto.records import read_record
from sync.simnet.faults import Fault, Faults
from sync.simnet.host import Host, Hosted, web_did
from sync.simnet.repo import Head
from sync.simnet.subscription import subscribe
from sync.simnet.world import World
from sync.simnet.xrpc import FAULT, XrpcError, guard, page_limit, parameter, send_car

_REFUSALS = {"takendown": "RepoTakendown", "suspended": "RepoSuspended"}


class Pds:
    """Answers for one host of a World."""

    def __init__(self, world: World, host: Host, faults: Faults) -> None:
        self.world = world
        self.host = host
        self.faults = faults

    def build(self) -> web.Application:
        """Return the application, new for each start."""
        app = web.Application(middlewares=[guard(self.faults, pds=self.host.index)])
        methods = {
            "server.describeServer": self.describe_server,
            "identity.resolveHandle": self.resolve_handle,
            "repo.listRecords": self.list_records,
            "sync.getLatestCommit": self.get_latest_commit,
            "sync.getRecord": self.get_record,
            "sync.getRepo": self.get_repo,
            "sync.getRepoStatus": self.get_repo_status,
            "sync.listRepos": self.list_repos,
            "sync.subscribeRepos": self.subscribe_repos,
        }
        for name, handler in methods.items():
            app.router.add_get(f"/xrpc/com.atproto.{name}", handler)
        app.router.add_get("/xrpc/_health", self.health)
        app.router.add_get("/xrpc/{method}", self.not_implemented)
        app.router.add_get("/.well-known/atproto-did", self.well_known_did)
        app.router.add_get("/.well-known/did.json", self.did_document)
        return app

    async def get_repo(self, request: web.Request) -> web.StreamResponse:
        """Export a repo; a hold stops here, after the repo was read."""
        did = parameter(request, "did")
        hosted = self._available(did)
        head = _asked_head(hosted, request.get(FAULT))
        # A large one takes seconds, and the whole network lives in this event loop.
        car = await asyncio.to_thread(hosted.repo.export, head)
        hold = self.faults.take_hold(did)
        if hold is not None:
            await hold.stop_here()
        return await send_car(request, car)

    async def get_record(self, request: web.Request) -> web.StreamResponse:
        """Prove one record, or its absence."""
        hosted = self._available(parameter(request, "did"))
        path = f"{parameter(request, 'collection')}/{parameter(request, 'rkey')}"
        return await send_car(request, hosted.repo.proof(path))

    async def get_repo_status(self, request: web.Request) -> web.Response:
        """Say whether an account is active."""
        did = parameter(request, "did")
        return web.json_response(status_body(did, self._hosted(did)))

    async def get_latest_commit(self, request: web.Request) -> web.Response:
        """Say the rev and CID of a repo's head."""
        hosted = self._available(parameter(request, "did"))
        return web.json_response({"cid": format_cid(hosted.repo.head.cid), "rev": hosted.rev})

    async def list_repos(self, request: web.Request) -> web.Response:
        """List the accounts, page by page; the last page is the empty one."""
        dids = list(self.host.accounts)
        return web.json_response(list_page(request, dids, self.host.accounts))

    async def list_records(self, request: web.Request) -> web.Response:
        """List records as JSON, newest first: for people, not for a mirror."""
        did, collection = parameter(request, "repo"), parameter(request, "collection")
        hosted = self._available(did)
        before = request.query.get("cursor", "\uffff")
        prefix = f"{collection}/"
        found = [
            (key.decode().removeprefix(prefix), cid)
            for key, cid in hosted.repo.head.tree.leaves()
            if key.startswith(prefix.encode())
        ]
        page = [one for one in reversed(found) if one[0] < before]
        page = page[: page_limit(request, default=50, most=100)]
        records = [
            {
                "uri": f"at://{did}/{collection}/{rkey}",
                "cid": format_cid(cid),
                "value": json.loads(read_record(hosted.repo.records[cid]).value or "null"),
            }
            for rkey, cid in page
        ]
        return web.json_response({"records": records, **_cursor(page[-1][0] if page else None)})

    async def subscribe_repos(self, request: web.Request) -> web.StreamResponse:
        """Stream this host's events."""
        return await subscribe(request, self.host.stream)

    async def describe_server(self, _request: web.Request) -> web.Response:
        """Describe the host."""
        domains = [f".pds{self.host.index}.test"]
        return web.json_response({"did": web_did(self.host.url), "availableUserDomains": domains})

    async def resolve_handle(self, request: web.Request) -> web.Response:
        """Resolve a handle that this host serves."""
        did = self.host.did_of(parameter(request, "handle"))
        if did is None:
            raise XrpcError("InvalidRequest", "Unable to resolve handle")
        return web.json_response({"did": did})

    async def well_known_did(self, request: web.Request) -> web.Response:
        """Answer the HTTPS side of a handle, which the Host header names."""
        did = self.host.did_of(request.host.partition(":")[0])
        if did is None:
            return web.Response(status=404, text="User not found")
        return web.Response(text=did)

    async def did_document(self, _request: web.Request) -> web.Response:
        """Serve the DID document of the account that is this host's did:web."""
        did = web_did(self.host.url)
        if did not in self.world.directory.identities:
            raise web.HTTPNotFound
        return web.json_response(self.world.directory.document(did))

    async def health(self, _request: web.Request) -> web.Response:
        """Say that the server runs."""
        return web.json_response({"version": "simnet"})

    async def not_implemented(self, _request: web.Request) -> web.Response:
        """Refuse a method that a PDS does not have."""
        raise XrpcError("MethodNotImplemented", "Method Not Implemented", status=501)

    def _hosted(self, did: str) -> Hosted:
        hosted = self.host.accounts.get(did)
        if hosted is None:
            raise XrpcError("RepoNotFound", f"Could not find repo for DID: {did}")
        return hosted

    def _available(self, did: str) -> Hosted:
        """Return an account whose repo may be read."""
        hosted = self._hosted(did)
        if hosted.status is not None:
            error = _REFUSALS.get(hosted.status, "RepoDeactivated")
            raise XrpcError(error, f"Repo has been {hosted.status}: {did}")
        return hosted


def list_page(request: web.Request, dids: list[str], accounts: dict[str, Hosted]) -> dict[str, Any]:
    """Return one page of listRepos; the cursor is the place of the next account."""
    limit = page_limit(request, default=500, most=1_000)
    text = request.query.get("cursor", "0")
    if not text.isdecimal():
        raise XrpcError("InvalidRequest", "Malformed cursor")
    start = int(text)
    page = dids[start : start + limit]
    repos = [_listed(did, accounts[did]) for did in page]
    return {"repos": repos, **_cursor(str(start + len(page)) if page else None)}


def _listed(did: str, hosted: Hosted) -> dict[str, Any]:
    head = {"did": did, "head": format_cid(hosted.listed_head), "rev": hosted.listed_rev}
    return head | _activity(hosted)


def status_body(did: str, hosted: Hosted) -> dict[str, Any]:
    """Return what getRepoStatus says of an account."""
    rev = {"rev": hosted.rev} if hosted.status is None else {}
    return {"did": did, **_activity(hosted), **rev}


def _activity(hosted: Hosted) -> dict[str, Any]:
    if hosted.status is None:
        return {"active": True}
    return {"active": False, "status": hosted.status}


def _asked_head(hosted: Hosted, fault: Fault | None) -> Head:
    """Return the head to export: an older one when the script says so."""
    heads = hosted.repo.heads
    behind = 0 if fault is None else fault.commits_behind
    return heads[max(0, len(heads) - 1 - behind)]


def _cursor(value: str | None) -> dict[str, str]:
    return {} if value is None else {"cursor": value}
