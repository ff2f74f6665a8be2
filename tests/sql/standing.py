"""A lane that is told how accounts stand, and the service that asks their PDSes."""

from typing import Any

from tests.sql.driver import Driver, Event, did

HOME = "https://pds.test"
AWAY = "https://old.test"


class Standing(Driver):
    """A driver whose accounts live at HOME."""

    def settle(self, *numbers: int) -> None:
        """Load some accounts with one record each."""
        for number in numbers:
            self.load(number, {"a": "x"}, at=10, data="t10")
        self.locate(*numbers, pds=HOME)

    def say(self, number: int, status: str | None, *, by: str | None = None) -> None:
        """Let a source say that an account is active (None) or not; `by` a PDS, else a relay."""
        host = None if by is None else by.removeprefix("https://")
        self.apply(
            Event(did(number), kind="account", is_active=status is None, status=status, reason=host)
        )

    def add_relay(self) -> None:
        """Read a second relay."""
        self.value("select sync.add_source('ws://second.test', 'relay')")

    def claim_checks(self, limit: int = 10) -> dict[str, int]:
        """Claim the questions that are due: did → serial."""
        rows = self.rows("select * from sync.claim_checks(%s)", limit)
        return {row["did"]: row["serial"] for row in rows}

    def answer(
        self, number: int, answer: str, status: str | None = None, *, at: str | None = HOME
    ) -> bool | None:
        """Claim the question about an account and answer it."""
        serial = self.claim_checks()[did(number)]
        return self.answer_to(number, serial, answer, status, at=at)

    def answer_to(
        self,
        number: int,
        serial: int,
        answer: str,
        status: str | None = None,
        *,
        at: str | None = HOME,
    ) -> bool | None:
        """Answer a question."""
        taken: bool | None = self.value(
            "select sync.answer_check(%s, %s, %s, %s, %s)", did(number), serial, at, answer, status
        )
        return taken

    def stands(self, number: int) -> tuple[bool, str | None]:
        """Return how an account stands."""
        row = self.repo(number)
        return row["is_active"], row["account_status"]

    def repo(self, number: int) -> Any:
        """Return a repo with its head."""
        return self.row(
            "select * from sync.repos join sync.heads using (repo_id) where did = %s", did(number)
        )

    def stored(self, number: int) -> int:
        """Count the stored records of a repo, shown or not."""
        count: int = self.value(
            "select count(*) from sync.stored_records join sync.repos using (repo_id)"
            " where did = %s",
            did(number),
        )
        return count

    def purges(self) -> int:
        """Count the purges under way."""
        return int(self.value("select count(*) from sync_priv.purges"))
