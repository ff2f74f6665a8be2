"""Take commands from another process: POST /control with {"op": …} and the op's arguments."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sync.atproto.cid import format_cid
from sync.errors import StandpipeError
from sync.simnet.account import Account
from sync.simnet.faults import Hold
from sync.simnet.repo import RepoCommit, Write, record_block
from sync.simnet.traffic import generate

if TYPE_CHECKING:
    from sync.simnet.network import Simnet

Arguments = dict[str, Any]
_ON_ACCOUNT = (
    "emit_sync",
    "emit_identity",
    "emit_account",
    "rotate_key",
    "break_key",
    "mend_key",
    "change_handle",
    "deactivate",
    "activate",
    "take_down",
    "restore",
    "set_status",
    "delete_account",
    "come_back",
    "move_account",
    "leave_host",
)
_ON_NETWORK = ("drop_next", "forget_history", "kick_consumers", "serve_stale_export", "fail_next")


class Control:
    """The commands of one Simnet.

    On an account (argument `did`): create, update, delete, apply_writes and every method in
    `_ON_ACCOUNT`. On the network: create_account, generate, traffic, leaves, describe,
    hold_get_repo, await_hold, release, stop_server, start_server and every method in `_ON_NETWORK`.
    """

    def __init__(self, net: "Simnet") -> None:
        self.net = net
        self._holds: list[Hold] = []
        self._ops: dict[str, Callable[[Arguments], Awaitable[Any]]] = {
            "create_account": self._create_account,
            "generate": self._generate,
            "create": self._create,
            "update": self._update,
            "delete": self._delete,
            "apply_writes": self._apply_writes,
            "traffic": self._traffic,
            "leaves": self._leaves,
            "describe": self._describe,
            "hold_get_repo": self._hold_get_repo,
            "await_hold": self._await_hold,
            "release": self._release,
            "stop_server": self._stop_server,
            "start_server": self._start_server,
        }

    def build(self) -> web.Application:
        """Return the application, new for each start."""
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/control", self.control)
        return app

    async def control(self, request: web.Request) -> web.Response:
        """Do what the body asks; anything it asks wrongly is a 400 that says so."""
        try:
            arguments = await request.json()
            result = await self._run(arguments.pop("op"), arguments)
        except (StandpipeError, ValueError, TypeError, LookupError, AttributeError) as error:
            return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)
        return web.json_response(result)

    async def _run(self, op: str, arguments: Arguments) -> Any:
        if op in self._ops:
            return await self._ops[op](arguments)
        if op in _ON_ACCOUNT:
            account = self._account(arguments)
            getattr(account, op)(**arguments)
            return {"rev": account.rev} if account.did in account.host.accounts else {}
        if op in _ON_NETWORK:
            getattr(self.net, op)(**arguments)
            return {}
        raise LookupError(f"no op {op!r}")

    def _account(self, arguments: Arguments) -> Account:
        """Take the account out of the arguments: by DID or by handle."""
        name = arguments.pop("did")
        for account in self.net.world.accounts.values():
            if name in (account.did, account.handle):
                return account
        raise LookupError(f"no account {name!r}")

    async def _create_account(self, arguments: Arguments) -> Any:
        account = self.net.create_account(**arguments)
        return next(one for one in self.net.describe()["accounts"] if one["did"] == account.did)

    async def _generate(self, arguments: Arguments) -> Any:
        made = generate(self.net.world, arguments["accounts"], arguments["records"])
        return {"dids": [account.did for account in made]}

    async def _create(self, arguments: Arguments) -> Any:
        return _told(self._account(arguments).create(**arguments))

    async def _update(self, arguments: Arguments) -> Any:
        return _told(self._account(arguments).update(**arguments))

    async def _delete(self, arguments: Arguments) -> Any:
        return _told(self._account(arguments).delete(**arguments))

    async def _apply_writes(self, arguments: Arguments) -> Any:
        account = self._account(arguments)
        return _told(account.apply_writes([_write(one) for one in arguments["writes"]]))

    async def _traffic(self, arguments: Arguments) -> Any:
        return {"commits": await self.net.run_traffic(**arguments)}

    async def _leaves(self, arguments: Arguments) -> Any:
        leaves = self._account(arguments).leaves()
        return {path: format_cid(cid) for path, cid in leaves.items()}

    async def _describe(self, _arguments: Arguments) -> Any:
        return self.net.describe()

    async def _hold_get_repo(self, arguments: Arguments) -> Any:
        self._holds.append(self.net.hold_get_repo(arguments.get("did")))
        return {"hold": len(self._holds) - 1}

    async def _await_hold(self, arguments: Arguments) -> Any:
        await self._holds[arguments["hold"]].arrived.wait()
        return {}

    async def _release(self, arguments: Arguments) -> Any:
        self._holds[arguments["hold"]].release()
        return {}

    async def _stop_server(self, arguments: Arguments) -> Any:
        await self.net.stop_server(arguments["name"])
        return {}

    async def _start_server(self, arguments: Arguments) -> Any:
        await self.net.start_server(arguments["name"])
        return {}


def _told(commit: RepoCommit) -> dict[str, Any]:
    return {"rev": commit.rev, "paths": [op.path for op in commit.ops]}


def _write(described: Arguments) -> Write:
    value = described.get("value")
    block = None if value is None else record_block(value)
    return Write(described["action"], described["collection"], described["rkey"], block)
