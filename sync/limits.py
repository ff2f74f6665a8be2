"""Bounds on how often something may be done: a token bucket, and a map that forgets."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
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
