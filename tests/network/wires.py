"""The relay and the doors of a network, working beside a test in a thread of their own."""

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.network.door import Door
from tests.network.harness import Network
from tests.network.relay import Relay
from tests.network.script import Script

START_TIMEOUT_S = 60.0


class Wires:
    """Everything between the PDSes of a fronted network and the services: a context manager."""

    def __init__(self, network: Network) -> None:
        self.script = Script()
        self.relay = Relay([host.inner_url for host in network.pds], self.script)
        self.doors = [
            Door(number, host.url, host.inner_url, self.relay)
            for number, host in enumerate(network.pds)
        ]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="wires")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._thread.is_alive():
            self.do(self._stop.set)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def do(self, what: Callable[[], None]) -> None:
        """Have something done in the thread of the wires, and wait for it."""
        done = threading.Event()

        def work() -> None:
            what()
            done.set()

        self._loop.call_soon_threadsafe(work)
        assert done.wait(START_TIMEOUT_S), f"the wires are broken: {self._error!r}"

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._run())
        except BaseException as error:  # noqa: BLE001  (raised where the test ends)
            self._error = error
        finally:
            self._loop.close()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(self.relay.run())]
            working += [tasks.create_task(door.run()) for door in self.doors]
            await self._stop.wait()
            for task in working:
                task.cancel()
