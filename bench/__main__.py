"""Measure the main job in this process and one PostgreSQL: `make bench`.

Ratios are what to trust; absolute figures depend on the machine and on what else it does.
The server is a throw-away one with fsync on, as in production.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from bench.export import first_load, resync
from bench.lane import lane_throughput
from bench.log import log_figures
from bench.report import Figure
from bench.verify import verification
from bench.views import view_figures
from sync.embedded import EmbeddedPostgres
from sync.schema import upgrade


def main() -> int:
    """Run every measurement and print a line each."""
    print("figure · measured · ceiling of the same run · ratio", flush=True)
    for item in verification():
        print(item.line() if isinstance(item, Figure) else item, flush=True)
    with tempfile.TemporaryDirectory(prefix="standpipe-bench-") as folder:
        postgres = EmbeddedPostgres(Path(folder) / "data")
        with postgres as url:
            upgrade(url)
            asyncio.run(_measure(url, Path(folder)))
    return 0


async def _measure(url: str, folder: Path) -> None:
    for measurement in (
        lane_throughput(url),
        first_load(url, folder),
        resync(url, folder),
        view_figures(url),
        log_figures(url),
    ):
        async for figure in measurement:
            _print(figure)


def _print(figure: Figure) -> None:
    print(figure.line(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
