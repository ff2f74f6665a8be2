"""The HTTP side of the simulated relay: one stream over all hosts, and where the repos are."""

from aiohttp import web

from sync.atproto.cid import format_cid
from sync.simnet.faults import Faults
from sync.simnet.host import Hosted
from sync.simnet.pds import list_page, status_body
from sync.simnet.subscription import subscribe
from sync.simnet.world import World
from sync.simnet.xrpc import XrpcError, guard, parameter


class Relay:
    """Answers for the whole World."""

    def __init__(self, world: World, faults: Faults) -> None:
        self.world = world
        self.faults = faults

    def build(self) -> web.Application:
        """Return the application, new for each start."""
        app = web.Application(middlewares=[guard(self.faults)])
        methods = {
            "getLatestCommit": self.get_latest_commit,
            "getRepo": self.get_repo,
            "getRepoStatus": self.get_repo_status,
            "listRepos": self.list_repos,
            "subscribeRepos": self.subscribe_repos,
        }
        for name, handler in methods.items():
            app.router.add_get(f"/xrpc/com.atproto.sync.{name}", handler)
        return app

    async def subscribe_repos(self, request: web.Request) -> web.StreamResponse:
        """Stream the events of every host."""
        return await subscribe(request, self.world.relay)

    async def get_repo(self, request: web.Request) -> web.Response:
        """Send the caller to the account's own host, as relays without a store do."""
        did = parameter(request, "did")
        self._hosted(did)
        raise web.HTTPFound(f"{self.world.host_of(did).url}{request.rel_url}")

    async def get_latest_commit(self, request: web.Request) -> web.Response:
        """Say the rev and CID of a repo's head."""
        hosted = self._hosted(parameter(request, "did"))
        return web.json_response({"cid": format_cid(hosted.repo.head.cid), "rev": hosted.rev})

    async def get_repo_status(self, request: web.Request) -> web.Response:
        """Say whether an account is active."""
        did = parameter(request, "did")
        return web.json_response(status_body(did, self._hosted(did)))

    async def list_repos(self, request: web.Request) -> web.Response:
        """List the accounts of every host."""
        hosted = {
            did: account.host.accounts[did]
            for did, account in self.world.accounts.items()
            if did in account.host.accounts
        }
        return web.json_response(list_page(request, list(hosted), hosted))

    def _hosted(self, did: str) -> Hosted:
        account = self.world.accounts.get(did)
        hosted = None if account is None else account.host.accounts.get(did)
        if hosted is None:
            raise XrpcError("RepoNotFound", f"Could not find repo for DID: {did}")
        return hosted
