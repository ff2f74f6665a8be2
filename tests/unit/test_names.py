"""Looking names up must not take threads that others wait for."""

import asyncio
import os
import socket
import threading

import pytest

from sync.http import AddressPolicy


async def test_name_servers_that_say_nothing_hold_up_nobody(monkeypatch):
    gate = threading.Event()
    ask = socket.getaddrinfo

    def crawl(host, *args, **options):
        if host.endswith(".slow.test"):
            gate.wait()
        return ask("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", crawl)
    policy = AddressPolicy(allow_private_hosts=True)
    count = (os.cpu_count() or 1) + 8
    slow = [
        asyncio.create_task(policy.addresses(f"a{number}.slow.test", 443))
        for number in range(count)
    ]
    try:
        async with asyncio.timeout(60):
            assert await asyncio.to_thread(lambda: "verified") == "verified"
            assert await policy.addresses("quick.test", 443) == ["127.0.0.1"]
        assert not any(task.done() for task in slow)
    finally:
        gate.set()
    assert await asyncio.gather(*slow) == [["127.0.0.1"]] * count


async def test_a_name_without_an_address_is_an_os_error(monkeypatch):
    def fail(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OSError, match="unknown"):
        await AddressPolicy(allow_private_hosts=True).addresses("nobody.test", 443)
