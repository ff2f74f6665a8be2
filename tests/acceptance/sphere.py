"""The world of docs/tutorial/statusphere.md, made by the page's own commands, and its model."""

import json
import os
import shutil
import signal
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.commands import wait_until
from tests.acceptance.terminals import (
    ROOT,
    Block,
    Terminals,
    on_free_ports,
    opened_terminals,
    read_blocks,
    run_block,
)

PAGE = ROOT / "docs" / "tutorial" / "statusphere.md"
FOLDER = ROOT / "docs" / "examples" / "statusphere"
NSID = "xyz.statusphere.status"
CONTROL, APP = 2612, 8080
PORTS = (2610, 2611, CONTROL, 2613, 2614, APP)
PEOPLE = ("alice.pds0.test", "bob.pds1.test", "carol.pds0.test")
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE_S = 60.0

Row = tuple[str, str]


@contextmanager
def opened_page(folder: Path) -> Iterator[tuple[Terminals, list[Block], dict[int, int]]]:
    """Open terminals in a folder with the app's files; give the page's blocks on free ports."""
    text, ports = on_free_ports(PAGE, *PORTS)
    shutil.copytree(FOLDER, folder)
    app = folder / "app.py"
    app.write_text(app.read_text("utf-8").replace(f"port={APP}", f"port={ports[APP]}"), "utf-8")
    with opened_terminals(folder) as terminals:
        yield terminals, list(read_blocks(text)), ports


@dataclass(slots=True)
class Sphere:
    """People, what they have said, and the app that shows it."""

    folder: Path
    terminals: Terminals
    control_url: str
    url: str
    # Person → rkey → what it says and when; only what counts as a status.
    said: dict[str, dict[str, Row]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)

    def control(self, op: str, did: str, **arguments: Any) -> Any:
        """Have the network do something."""
        body = {"op": op, "did": did, **arguments}
        answer = httpx.post(self.control_url, json=body, trust_env=False, timeout=PATIENCE_S)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def write(self, who: str, rkey: str, value: dict[str, Any], *, is_new: bool = True) -> None:
        """Write a record that may be anything."""
        op = "create" if is_new else "update"
        self.control(op, who, collection=NSID, rkey=rkey, value={"$type": NSID, **value})

    def say(self, who: str, rkey: str, status: str, minute: int) -> None:
        """Set a status as of some minute; one with that key is replaced.

        One of the future counts as of now, when it comes.
        """
        when = BEGINNING + timedelta(minutes=minute)
        mine = self.said.setdefault(who, {})
        value = {"status": status, "createdAt": when.strftime("%Y-%m-%dT%H:%M:%SZ")}
        self.write(who, rkey, value, is_new=rkey not in mine)
        mine[rkey] = (min(when, datetime.now(UTC)).isoformat(timespec="microseconds"), status)

    def take_back(self, who: str, rkey: str) -> None:
        """Delete a status."""
        self.control("delete", who, collection=NSID, rkey=rkey)
        self.said[who].pop(rkey, None)

    def clear(self) -> None:
        """Begin anew: nobody has said anything."""
        for who, mine in self.said.items():
            for rkey in list(mine):
                self.take_back(who, rkey)
        self.await_board("an empty board")

    def wanted(self) -> list[Row]:
        """Return who and what the page has to show, the newest first."""
        latest = [
            (when, who, status)
            for who, mine in self.said.items()
            for when, rkey, status in sorted((w, rkey, s) for rkey, (w, s) in mine.items())[-1:]
            if who not in self.hidden
        ]
        return [(who, status) for _, who, status in sorted(latest, reverse=True)]

    def events(self) -> Generator[list[Row], None, None]:
        """Yield what an open page is sent, until it is closed."""
        with httpx.stream("GET", f"{self.url}live", trust_env=False, timeout=PATIENCE_S) as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    yield [(row["who"], row["status"]) for row in json.loads(line[6:])]

    def board(self) -> list[Row] | None:
        """Return what the page shows, or None if nobody answers."""
        with closing(self.events()) as events:
            try:
                return next(events)
            except httpx.TransportError:
                return None

    def await_board(self, what: str) -> None:
        """Wait until the page shows what it has to."""
        seen: list[object] = []

        def is_right() -> bool:
            seen[:] = [self.board()]
            return seen == [self.wanted()]

        try:
            wait_until(is_right, what, timeout_s=PATIENCE_S)
        except AssertionError as error:
            raise AssertionError(f"{what}: {seen} instead of {self.wanted()}") from error

    def sql(self, query: str, *, as_app: bool = False) -> str:
        """Return what psql prints for a query of the operator, or of the app."""
        (self.folder / "query.sql").write_text(query, encoding="utf-8")
        url = "$DATABASE_URL" if as_app else "$URL"
        status, output = self.terminals.run(f'psql -qAtX -f query.sql "{url}"')
        assert status == 0, output
        assert "ERROR" not in output, output
        return output.strip()

    def kill(self, program: str) -> None:
        """End the app or the service without a word."""
        os.kill(int((self.folder / f"{program}.pid").read_text()), signal.SIGKILL)

    def start(self, program: str) -> None:
        """Start it again, as the page does."""
        command = {"app": "python app.py", "service": "standpipe run"}[program]
        self.terminals.open(f"sh -c 'echo $$ > {program}.pid; exec {command}'")


@contextmanager
def opened_sphere(folder: Path) -> Iterator[Sphere]:
    """Follow the page until the app runs."""
    with opened_page(folder) as (terminals, blocks, ports):
        for block in blocks:
            run_block(terminals, block)
            if block.mode == "program":
                break
        control, app = (f"http://127.0.0.1:{ports[port]}/" for port in (CONTROL, APP))
        sphere = Sphere(folder, terminals, f"{control}control", app)
        # What the page's commands have said so far.
        for who, rkey in ((PEOPLE[0], "A"), (PEOPLE[0], "B"), (PEOPLE[1], "A")):
            sphere.said.setdefault(who, {})[rkey] = ("", "")
        sphere.clear()
        yield sphere
