"""One line of `standpipe doctor`."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, how bad it is, and what to do."""

    check: str
    level: Level
    finding: str
    advice: str = ""


def ok(check: str, finding: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(check, "ok", finding)


def warn(check: str, finding: str, advice: str) -> Finding:
    """Return a finding that somebody should look at."""
    return Finding(check, "warn", finding, advice)


def fail(check: str, finding: str, advice: str) -> Finding:
    """Return a finding that stops the sync."""
    return Finding(check, "fail", finding, advice)
