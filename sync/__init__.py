"""Standpipe: verified AT Protocol sync inside the app's own PostgreSQL.

For apps:

    from sync import AsyncConsumer, Change, Consumer
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sync.async_consumer import AsyncConsumer
    from sync.changes import Change
    from sync.consumer import Consumer

__version__ = "0.1.0"
__all__ = ["AsyncConsumer", "Change", "Consumer", "__version__"]

_PLACES = {"AsyncConsumer": "async_consumer", "Change": "changes", "Consumer": "consumer"}


def __getattr__(name: str) -> Any:
    """Load what an app asks for when it does: the commands start faster without."""
    if name not in _PLACES:
        raise AttributeError(f"module 'sync' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"sync.{_PLACES[name]}"), name)
