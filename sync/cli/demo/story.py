"""What happens in the demo, act by act; every claim is compared with the network itself."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sync.cli.demo.stage import Stage
from sync.simnet import Account
from sync.simnet.traffic import POST, PROFILE, generate

NOTE = "com.example.demo.note"
ACCOUNTS = 24
RECORDS = 250
COMMITS_PER_S = 150.0
TRAFFIC_S = 2.0

# What the refetch must write, and nothing else: C is as it was.
EXPECTED = [("create", "A"), ("delete", "B"), ("create", "D")]


@dataclass(slots=True)
class Report:
    """What was shown and whether it held."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    say: Callable[[str], None] = print

    def tell(self, name: str, text: str) -> None:
        """Add a line to the last screen."""
        self.lines.append((name, text))

    def check(self, claim: str, *, holds: bool) -> None:
        """Say whether a claim holds, and remember when it does not."""
        self.say(f"  {'✓' if holds else '✗ NOT TRUE:'} {claim}")
        if not holds:
            self.failures.append(claim)


async def play(stage: Stage, report: Report) -> None:
    """Play all acts."""
    accounts = generate(stage.net.world, ACCOUNTS, RECORDS)
    await backfill(stage, report, accounts)
    await follow(stage, report, accounts)
    await lose_and_resync(stage, report, accounts)
    await compare(stage, report)


async def backfill(stage: Stage, report: Report, accounts: list[Account]) -> None:
    """Track everybody and load their repos."""
    report.say(f"Backfill: {len(accounts)} accounts on 2 PDSes are tracked and fetched")
    started_at = time.monotonic()
    await stage.conn.execute("select sync.track_repos($1)", [account.did for account in accounts])
    await stage.wait_until_level(accounts)
    seconds = time.monotonic() - started_at
    stored = await stage.stored()
    report.check("the tables hold what the accounts signed", holds=stored == stage.signed())
    await stage.read_on()
    report.tell("backfilled", f"{len(accounts)} repos, {len(stored):,} records in {seconds:.1f} s")


async def follow(stage: Stage, report: Report, accounts: list[Account]) -> None:
    """Apply live commits as they happen."""
    report.say("Live: everybody writes, changes and deletes for a while")
    mark = await stage.log_head()
    commits = await stage.net.run_traffic(COMMITS_PER_S, TRAFFIC_S)
    await stage.wait_until_level(accounts)
    changes = await stage.logged_since(mark)
    report.check("the tables still equal the network", holds=await stage.stored() == stage.signed())
    report.check("every change came live", holds=all(row["is_live"] for row in changes))
    await stage.read_on()
    report.tell("live", f"{commits} commits applied: {_counted(changes)}")


async def lose_and_resync(stage: Stage, report: Report, accounts: list[Account]) -> None:
    """Play the reference example: events are lost, and the refetch finds what they said."""
    report.say("Resync: the stream loses events, the next one does not fit, the repo is refetched")
    alice, bob = accounts[0], accounts[1]
    alice.create(NOTE, _note("lorem"), rkey="A")
    alice.create(NOTE, _note("ipsum"), rkey="B")
    alice.delete(NOTE, "A")
    alice.create(NOTE, _note("dolor"), rkey="C")
    await stage.wait_until_level(accounts)
    mark = await stage.log_head()
    stage.net.drop_next(3)
    alice.create(NOTE, _note("i'm back"), rkey="A")
    alice.delete(NOTE, "B")
    bob.update(PROFILE, {"$type": PROFILE, "displayName": "Bob, renamed unheard"}, rkey="self")
    alice.create(NOTE, _note("amet"), rkey="D")
    bob.create(POST, {"$type": POST, "text": "heard, but it does not fit"})
    await stage.wait_until_level([alice, bob])
    changes = await stage.logged_since(mark)
    of_alice = [(row["kind"], row["rkey"]) for row in changes if row["did"] == alice.did]
    of_bob = [row["kind"] for row in changes if row["did"] == bob.did]
    report.check(
        "A=“i'm back” is created, B deleted, D=amet created, and nothing happens to C",
        holds=sorted(of_alice, key=lambda change: change[1]) == EXPECTED,
    )
    report.check(
        "in another repo the lost update of its profile is found",
        holds=sorted(of_bob) == ["create", "update"],
    )
    report.check("none of it is called live", holds=not any(row["is_live"] for row in changes))
    report.tell("resync", f"{_counted(changes)}, found by comparing, not told by anybody")
    await stage.read_on()
    mark = await stage.log_head()
    await stage.resync([alice, bob])
    again = await stage.logged_since(mark)
    report.check("a second resync writes nothing", holds=not again)
    report.tell("again", f"a second resync of both: {_counted(again)}")


async def compare(stage: Stage, report: Report) -> None:
    """Compare everything with everything."""
    report.say("Compare: the log, the tables, the network, the signatures")
    await stage.read_on()
    stored, signed, fold = await stage.stored(), stage.signed(), stage.fold
    report.check("table = network", holds=stored == signed)
    is_exact = fold.records == stored and not fold.complaints
    report.check("fold(change log) = table, and no change was told twice or missed", holds=is_exact)
    told = f"their fold {'is' if is_exact else 'is NOT'} the table of {len(stored):,} records"
    report.tell("log", f"{fold.changes:,} changes read; {told}")
    proofs = await stage.proofs()
    is_whole = proofs == {"whole": len(stage.net.world.accounts)}
    report.check("verify says `whole` of every repo", holds=is_whole)
    report.tell("verify", ", ".join(f"{answer}: {n} repos" for answer, n in proofs.items()))


def _note(text: str) -> dict[str, str]:
    return {"$type": NOTE, "text": text}


def _counted(changes: list[dict[str, object]]) -> str:
    counts = Counter(str(row["kind"]) for row in changes)
    return ", ".join(
        f"{counts[kind]} {kind}{'' if counts[kind] == 1 else 's'}"
        for kind in ("create", "update", "delete")
    )
