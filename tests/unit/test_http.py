"""The rules of the HTTP client that need no socket."""

import socket
from datetime import UTC, datetime

import httpx
import pytest
from aiohttp.abc import ResolveResult

from sync.http import AddressPolicy, RefusedAddress, Reply, is_public, retry_after_s

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.scenario("A-55")
@pytest.mark.rule("OP-01")
@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::7f00:1",
        "::10.0.0.1",
        "fec0::1",
        "64:ff9b:1::7f00:1",
    ],
)
def test_an_address_of_some_inner_network_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_an_address_of_the_internet_is_public(address):
    assert is_public(address)


@pytest.mark.scenario("A-57")
@pytest.mark.rule("D-17", "ES-01")
@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "ws://example.com",
        "https://example.com:25",
        "https://127.0.0.1",
        "https://[::1]",
        "https://10.0.0.1:8443",
    ],
)
def test_a_url_is_refused_by_what_it_says(url):
    with pytest.raises(RefusedAddress):
        AddressPolicy(allow_private_hosts=False).check_url(httpx.URL(url))
    AddressPolicy(allow_private_hosts=True).check_url(httpx.URL(url))


@pytest.mark.parametrize(
    "url", ["https://example.com", "wss://example.com:443", "https://a.b:3000"]
)
def test_a_url_on_the_internet_is_accepted(url):
    AddressPolicy(allow_private_hosts=False).check_url(httpx.URL(url))


@pytest.mark.rule("OP-01")
async def test_a_name_that_resolves_to_loopback_is_refused():
    policy = AddressPolicy(allow_private_hosts=False)
    with pytest.raises(RefusedAddress, match="no public address"):
        await policy.addresses("localhost", 443)
    assert await AddressPolicy(allow_private_hosts=True).addresses("localhost", 443)


@pytest.mark.rule("OP-01")
def test_of_mixed_addresses_only_the_public_ones_are_used():
    found = [
        ResolveResult(
            hostname="example.com",
            host=host,
            port=443,
            family=socket.AF_INET,
            proto=0,
            flags=0,
        )
        for host in ("127.0.0.1", "1.1.1.1")
    ]
    kept = AddressPolicy(allow_private_hosts=False).permitted("example.com", found)
    assert [entry["host"] for entry in kept] == ["1.1.1.1"]


@pytest.mark.rule("BF-16")
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "30"}, 30.0),
        ({"retry-after": "86400"}, 3600.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT"}, 60.0),
        ({"retry-after": "Thu, 01 Jan 2015 00:01:00 GMT"}, 0.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": str(int(NOW.timestamp()) + 90)}, 90.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "15"}, 15.0),
        ({"ratelimit-remaining": "7", "ratelimit-reset": "15"}, None),
    ],
)
def test_a_servers_wish_to_be_left_alone_is_read_in_every_form(headers, expected):
    assert retry_after_s(httpx.Headers(headers), now=NOW, cap_s=3600) == expected


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[1]", b'"x"', b'{"error": 5}', b"\xff", b"[" * 9_000]
)
def test_an_error_body_may_be_anything(body):
    assert Reply(400, httpx.Headers(), body).error_name() == ""


@pytest.mark.rule("BF-16", "FA-14")
@pytest.mark.parametrize(
    "text",
    [
        "Mon, 01 Jan 2024 00:00:00 +99999999999999999",
        "Mon, 01 Jan 2024 99999999999999999999:00:00 GMT",
        "Mon, 01 Jan 0001 00:00:00 +9999",
        "9" * 4000,
        "\u0661\u0662",
    ],
)
def test_a_pause_that_is_no_time_is_none(text):
    assert retry_after_s(httpx.Headers({"retry-after": text.encode()}), now=NOW, cap_s=9) is None
