"""One service a module, to which all its lies are told."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.hostile.world import HostileWorld, hostile_world
from tests.postgres import TEMPLATE, Server

# What a lie may cost at most.
MAX_REPO_BYTES = 16 << 20
FETCH_TIMEOUT_S = 6.0


@pytest.fixture(scope="module")
def module_clone(postgres: Server) -> Iterator[str]:
    """Return the service's URL of a database that a module's tests share."""
    with postgres.database(template=TEMPLATE) as name:
        yield postgres.service_url(name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    module_clone: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[HostileWorld]:
    """Return a running service on a network of three hosts and a relay.

    Who uses it needs `pytest.mark.asyncio(loop_scope="module")`.
    """
    async with hostile_world(
        module_clone,
        tmp_path_factory.mktemp("hostile"),
        pds_count=3,
        max_repo_bytes=MAX_REPO_BYTES,
        fetch_timeout_s=FETCH_TIMEOUT_S,
    ) as world:
        yield world
