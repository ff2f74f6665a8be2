"""Two unrelated code bases read the simulated repos and agree with what the network holds."""

import asyncio
import json
from typing import Any

import pytest

from sync.atproto.cid import format_cid
from sync.simnet import Simnet
from sync.simnet.traffic import Traffic, generate
from tests.network.install import ensure_installed, requires_network

ORACLE_TIMEOUT_S = 60


async def ask(script: str, *arguments: str) -> Any:
    """Run one of the oracles beside the network, which lives in this event loop."""
    install = await asyncio.to_thread(ensure_installed)
    oracle = await asyncio.create_subprocess_exec(
        install.node,
        install.scripts / script,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(oracle.communicate(), ORACLE_TIMEOUT_S)
    assert oracle.returncode == 0
    return json.loads(output)


@pytest.mark.real_pds
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("key_form", ["multikey", "legacy"])
async def test_the_reference_implementation_and_a_second_one_accept_every_repo(key_form):
    requires_network()
    async with Simnet(seed=7, pds_count=2, key_form=key_form) as net:
        accounts = generate(net.world, 2, 60)
        traffic = Traffic(net.world, seed=7)
        for _ in range(80):
            traffic.step()
        accounts[0].rotate_key("p256")
        for account in accounts:
            where = ("--pds", account.host.url, "--did", account.did)
            told = await ask("oracle.mjs", *where, "--plc", net.plc_url)
            assert told["signatureValid"] is True
            assert (told["rev"], told["data"]) == (
                account.rev,
                format_cid(account.repo.head.tree.cid),
            )
            expected = {path: format_cid(cid) for path, cid in account.leaves().items()}
            for answer in (told, await ask("oracle_atcute.mjs", *where)):
                records = answer["records"]
                assert {f"{one['collection']}/{one['rkey']}": one["cid"] for one in records} == (
                    expected
                )
