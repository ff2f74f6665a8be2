"""`standpipe simnet`: a small atproto network on loopback, for development without the real one."""

import asyncio

import click

from sync.cli.context import run_until_stopped
from sync.cli.output import print_json
from sync.errors import UsageError
from sync.simnet import serve

HIGHEST_PORT = 65_535


@click.command()
@click.option("--seed", default=1, show_default=True, help="Decides accounts, keys and contents.")
@click.option("--pds", "pds_count", default=2, show_default=True, type=click.IntRange(1, 50))
@click.option("--accounts", default=10, show_default=True, type=click.IntRange(0, 10_000))
@click.option(
    "--records",
    default=50,
    show_default=True,
    type=click.IntRange(0, 1_000_000),
    help="How many each account has at first.",
)
@click.option(
    "--port",
    default=0,
    show_default=True,
    type=click.IntRange(0, HIGHEST_PORT),
    help="The first of the ports in a row: PLC, relay, control, PDSes. 0 takes free ones.",
)
def simnet(*, seed: int, pds_count: int, accounts: int, records: int, port: int) -> None:
    """Serve a simulated network on 127.0.0.1 until Ctrl-C or SIGTERM.

    It prints one line of JSON: the URLs of its PLC directory, relay and PDSes, and its accounts.
    Its signatures are real. Point a service at it with STANDPIPE_PLC_URL, STANDPIPE_RELAY_URL and
    STANDPIPE_ALLOW_PRIVATE_HOSTS=true; POST {"op": "traffic", "commits_per_s": 50, "seconds": 10}
    to the control URL to make something happen.

    Example:
      standpipe simnet --accounts 20 --records 100
    """
    if port and port + 2 + pds_count > HIGHEST_PORT:
        raise UsageError(f"There are no {3 + pds_count} ports from {port} on: choose a lower one.")

    async def main(stop: asyncio.Event) -> None:
        await serve(
            seed=seed,
            pds_count=pds_count,
            accounts=accounts,
            records=records,
            port=port,
            stop=stop,
            announce=print_json,
        )

    run_until_stopped(main)
