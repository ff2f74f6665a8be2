"""Fixtures for tests that need a real network: name this module in `pytest_plugins`."""

from collections.abc import Iterator

import pytest

from tests.network.harness import Network
from tests.network.install import requires_network


@pytest.fixture(scope="module", params=["raw", "multikey"])
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """Run two PDSes, once with legacy and once with current keys in the DID documents."""
    requires_network()
    with Network.start(pds=2, accounts=2, records=4, did_doc=request.param) as network:
        yield network
