"""What tests wait for that need more than the ledger's own checks."""

from sync.simnet import Account
from tests.hostile.world import HostileWorld


async def has_read(world: HostileWorld, seq: int) -> bool:
    """Tell whether the stream was read up to here."""
    read = await world.rig.conn.fetchval("select min(seq) from sync.source_status")
    return read is not None and read >= seq


async def is_at_head(world: HostileWorld, account: Account) -> bool:
    """Tell whether a repo is synchronized at the network's rev, whatever it shows."""
    is_head = await world.rig.head(account) == account.rev
    return is_head and await world.rig.state(account) == "synchronized"
