"""Run a simulated network until told to stop: `standpipe simnet`, and the demo's other half."""

import asyncio
from collections.abc import Callable
from typing import Any

from sync.simnet.network import Simnet
from sync.simnet.traffic import generate


async def serve(
    *,
    seed: int,
    pds_count: int,
    accounts: int,
    records: int,
    port: int = 0,
    stop: asyncio.Event,
    announce: Callable[[dict[str, Any]], None],
) -> None:
    """Start a network with accounts of so many records each, announce it, wait for `stop`.

    Revs and times follow the wall clock here; DIDs, keys and records still follow the seed.
    """
    async with Simnet(seed=seed, pds_count=pds_count, port=port, start_us=None) as net:
        generate(net.world, accounts, records)
        announce(net.describe())
        await stop.wait()
