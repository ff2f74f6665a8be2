"""The plans of what really runs, and what to look for in them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.sql.driver import Driver
from tests.sql.readers import Session

BIG = ("repos", "heads", "stored_records", "held_events", "account_checks", r"changes_\d+")
SCAN = re.compile(rf"Seq Scan on (?:\w+\.)?({'|'.join(BIG)})\b")
_LOOKED_AT = re.compile(
    r"Scan .*?actual .*?rows=([\d.]+) loops=(\d+)|Rows Removed by [\w ]+: (\d+)"
)
# A setting that shows what was met, too.
ANALYZED = "set auto_explain.log_analyze = on"


def show_plans(conn: Session, *more: str) -> None:
    """Have the plans of every statement, those of functions included, sent to the client."""
    for setting in (
        "load 'auto_explain'",
        "set auto_explain.log_min_duration = 0",
        "set auto_explain.log_nested_statements = on",
        *more,
        "set client_min_messages = log",
    ):
        conn.execute(setting.encode())


class Plans:
    """Run statements in a transaction that is rolled back; keep the plans of all they run."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.seen: list[str] = []
        driver.conn.add_notice_handler(self._note)

    def _note(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        text = diagnostic.message_primary or ""
        if "plan:" in text:
            self.seen.append(text)

    def of(self, query: str, *args: object) -> str:
        """Return the plans of one statement and everything it runs inside."""
        with self.recorded():
            self.driver.rows(query, *args)
        return self.text

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Keep the plans of what the block runs; roll it back."""
        self.seen.clear()
        with self.driver.conn.transaction(force_rollback=True):
            yield
        assert self.seen

    @property
    def text(self) -> str:
        """The plans of the last statement or block."""
        return "\n".join(self.seen)


def scans(text: str) -> list[str]:
    """Return the plans that read a big table from one end to the other."""
    return [plan for plan in text.split("duration:") if SCAN.search(plan)]


def most_rows(text: str) -> float:
    """Return the most rows that one scan of some plans brought, or that were thrown away."""
    looked_at = [
        float(removed) if removed else float(rows) * float(loops)
        for rows, loops, removed in _LOOKED_AT.findall(text)
    ]
    return max(looked_at, default=0)
