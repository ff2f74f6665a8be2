"""Bounds on how often something may be done, or how much of it at a time, or remembered."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TokenBucket:
    """Allow `rate_per_s` on average and `burst` at once."""

    def __init__(
        self,
        *,
        rate_per_s: float,
        burst: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._tokens = burst
        self._filled_at = clock()

    def try_take(self) -> bool:
        """Take a token if there is one."""
        self._fill()
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def take(self) -> float:
        """Take a token that may not be there yet; returns the seconds to wait for it."""
        self._fill()
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate_per_s)

    def pause(self, seconds: float) -> None:
        """Hand out nothing for a while: the other side asked for it."""
        self._fill()
        self._tokens = min(self._tokens, -seconds * self._rate_per_s)

    def _fill(self) -> None:
        now = self._clock()
        earned = (now - self._filled_at) * self._rate_per_s
        self._tokens = min(self._burst, self._tokens + earned)
        self._filled_at = now


class LentPlaces:
    """Places for work side by side; who takes long works on without one, and keeps nobody out."""

    def __init__(self, places: int, *, long_s: float) -> None:
        self._free = asyncio.Semaphore(places)
        self._long_s = long_s

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place, and hold it to the end of the block, or until that takes long."""
        await self._free.acquire()
        giving_back = [self._free.release]

        def give_back() -> None:
            if giving_back:
                giving_back.pop()()

        timer = asyncio.get_running_loop().call_later(self._long_s, give_back)
        try:
            yield
        finally:
            timer.cancel()
            give_back()


class BoundedMap(OrderedDict[K, V], Generic[K, V]):
    """A dict that forgets the entry written longest ago once it is full."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._size:
            self.popitem(last=False)
