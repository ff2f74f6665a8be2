"""A PostgreSQL of our own: found, made, started, shared and stopped without leaving its folder."""

from sync.embedded.binaries import Binaries, find_binaries
from sync.embedded.server import EmbeddedPostgres

__all__ = ["Binaries", "EmbeddedPostgres", "find_binaries"]
