"""The HTTP side of the simulated PLC directory."""

from aiohttp import web

from sync.simnet.directory import Directory
from sync.simnet.faults import Faults
from sync.simnet.xrpc import guard


class Plc:
    """Answers for the did:plc identities of a Directory."""

    def __init__(self, directory: Directory, faults: Faults) -> None:
        self.directory = directory
        self.faults = faults

    def build(self) -> web.Application:
        """Return the application, new for each start."""
        app = web.Application(middlewares=[guard(self.faults)])
        app.router.add_get("/_health", self.health)
        app.router.add_get("/{did}", self.document)
        return app

    async def health(self, _request: web.Request) -> web.Response:
        """Say that the server runs."""
        return web.json_response({"version": "simnet"})

    async def document(self, request: web.Request) -> web.Response:
        """Serve a DID document; a tombstone is told as the npm server tells it (D-16)."""
        did = request.match_info["did"]
        identity = self.directory.identities.get(did)
        if identity is None or not did.startswith("did:plc:"):
            return web.json_response({"message": f"DID not registered: {did}"}, status=404)
        if identity.is_tombstoned:
            return web.json_response({"message": f"DID not available: {did}"}, status=404)
        document = self.directory.document(did)
        return web.json_response(document, content_type="application/did+ld+json")
