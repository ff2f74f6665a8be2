"""Time the verification of commits and exports on one core, step by step.

`python -m bench.verify` prints the split alone. What counts is the processor time of this
process, the best of many short rounds: other work on the machine still slows a round down.
"""

import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from bench.report import Figure
from sync.atproto.car import Car, read_car
from sync.atproto.commit import Commit, check_signature, read_commit
from sync.atproto.export import ExportLimits, read_export
from sync.atproto.frame import CommitMessage, read_frame
from sync.atproto.inversion import invert
from sync.atproto.keys import K256, PublicKey
from sync.atproto.ops import Change, net_changes
from sync.atproto.verify import MAX_COMMIT_BLOCKS, verify_commit
from sync.simnet import Account, World
from sync.simnet.traffic import commit_frames, generate
from sync.triage import now_us

ACCOUNTS, RECORDS, COMMITS = 8, 3_000, 400
EXPORT_RECORDS = 20_000
BATCH, ROUNDS = 20, 30
LIMITS = ExportLimits(max_bytes=1 << 31, max_records=10_000_000)


class Sample(NamedTuple):
    """One commit and what each step of its verification needs."""

    frame: bytes
    message: CommitMessage
    key: PublicKey
    car: Car
    commit: Commit
    changes: list[Change]


def samples() -> list[Sample]:
    """Make commits of about 5 kB, all signed with K-256 as nearly all real ones are."""
    world = World(seed=1, start_us=None)
    keys = {account.did: account.repo.key.public for account in generate(world, ACCOUNTS, RECORDS)}
    made = (_sample(frame, keys) for frame in commit_frames(world, COMMITS))
    return [sample for sample in made if sample.key.curve == K256]


def _sample(frame: bytes, keys: dict[str, PublicKey]) -> Sample:
    message = read_frame(frame)
    assert isinstance(message, CommitMessage)
    car = read_car(message.blocks, max_blocks=MAX_COMMIT_BLOCKS)
    commit = read_commit(car.blocks[car.roots[0]])
    return Sample(frame, message, keys[message.did], car, commit, net_changes(message.ops))


def split(commits: list[Sample]) -> dict[str, float]:
    """Return the microseconds a commit that every step takes, the whole last."""
    now = now_us()
    steps: dict[str, Callable[[Sample], Any]] = {
        "read the frame": lambda s: read_frame(s.frame),
        "slice and hash the CAR": lambda s: read_car(
            s.message.blocks, max_blocks=MAX_COMMIT_BLOCKS
        ),
        "read the commit": lambda s: read_commit(s.commit.block),
        "signature, K-256": lambda s: check_signature(s.commit, s.key),
        "net changes of the ops": lambda s: net_changes(s.message.ops),
        "invert the tree": lambda s: invert(s.commit.data, s.car.blocks, s.changes),
        "verify_commit, all but the frame": lambda s: verify_commit(s.message, s.key, now_us=now),
    }
    us = {name: 1e6 * seconds / len(commits) for name, seconds in best_s(steps, commits).items()}
    us["whole verification"] = us["read the frame"] + us["verify_commit, all but the frame"]
    return us


def best_s(
    steps: dict[str, Callable[[Sample], Any]], commits: Sequence[Sample]
) -> dict[str, float]:
    """Return the least processor time, in seconds, of every step over all the commits.

    The steps take turns, so that a slow spell of the machine hits all of them.
    """
    batches = [commits[first : first + BATCH] for first in range(0, len(commits), BATCH)]
    best = {name: [float("inf")] * len(batches) for name in steps}
    for _ in range(ROUNDS):
        for number, batch in enumerate(batches):
            for name, step in steps.items():
                started_at = time.process_time()
                for commit in batch:
                    step(commit)
                seconds = time.process_time() - started_at
                best[name][number] = min(best[name][number], seconds)
    return {name: sum(seconds) for name, seconds in best.items()}


def split_lines(us: dict[str, float], commits: list[Sample]) -> Iterator[str]:
    """Write the split, a line each step."""
    size = sum(len(sample.frame) for sample in commits) / len(commits)
    yield f"verification of a commit of {size:,.0f} bytes, µs of one core:"
    for name, step_us in us.items():
        yield f"  {name:<44} {step_us:>10.1f}"


def export_rate(account: Account) -> float:
    """Return the records a second of a full verification of one export."""
    data, now, best = account.repo.export(), now_us(), float("inf")
    for _ in range(ROUNDS):
        started_at = time.process_time()
        read_export(
            io.BytesIO(data), account.did, account.repo.key.public, now_us=now, limits=LIMITS
        )
        best = min(best, time.process_time() - started_at)
    return EXPORT_RECORDS / best


def slicing_rate(account: Account) -> float:
    """Return the records a second when an export's blocks are hashed and nothing else."""
    data, best = account.repo.export(), float("inf")
    for _ in range(ROUNDS):
        started_at = time.process_time()
        read_car(data, max_blocks=LIMITS.max_blocks)
        best = min(best, time.process_time() - started_at)
    return EXPORT_RECORDS / best


def verification() -> Iterator[Figure | str]:
    """Yield the rates of commits and exports, and the split of the former as lines."""
    commits = samples()
    us = split(commits)
    yield Figure(
        "commits verified, one core",
        1e6 / us["whole verification"],
        "commits/s",
        1e6 / (us["signature, K-256"] + us["slice and hash the CAR"]),
        "signature and hashes alone",
    )
    yield from split_lines(us, commits)
    [account] = generate(World(seed=2, start_us=None), 1, EXPORT_RECORDS)
    yield Figure(
        "export verified, one core",
        export_rate(account),
        "records/s",
        slicing_rate(account),
        "hashes alone",
    )


def main() -> int:
    """Print the figures."""
    for item in verification():
        print(item.line() if isinstance(item, Figure) else item, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
