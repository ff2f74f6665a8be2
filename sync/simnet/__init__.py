"""A small honest atproto network on loopback: PLC directory, PDSes and relay in one process.

It signs real commits over real trees, is deterministic by seed, and can be scripted: from
Python through `Simnet`, from another process through its control port. It never lies; tests
that need a liar add the lies themselves.
"""

from sync.simnet.account import Account
from sync.simnet.network import Simnet
from sync.simnet.repo import Write
from sync.simnet.standalone import serve
from sync.simnet.world import World

__all__ = ["Account", "Simnet", "World", "Write", "serve"]
