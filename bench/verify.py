"""Time the verification of commits and exports on one core, step by step.

`make bench-verify` prints this alone. What counts is the least time of each commit in many
rounds: other work on the machine only adds to it.
"""

import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from statistics import fmean
from typing import Any, NamedTuple

import coincurve
import libipld
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from bench.report import Figure
from sync.atproto.car import Car, read_car
from sync.atproto.commit import Commit, check_signature, read_commit
from sync.atproto.export import ExportLimits, read_export
from sync.atproto.frame import CommitMessage, read_frame
from sync.atproto.inversion import invert
from sync.atproto.keys import K256, PublicKey
from sync.atproto.ops import Change, net_changes
from sync.atproto.records import read_record
from sync.atproto.verify import MAX_COMMIT_BLOCKS, VerifiedCommit, verify_commit
from sync.simnet import Account, World
from sync.simnet.traffic import commit_frames, generate
from sync.staging import stage_commit
from sync.tracking import CollectionFilter
from sync.triage import now_us

ACCOUNTS, RECORDS, COMMITS = 8, 3_000, 400
EXPORT_RECORDS = 20_000
ROUNDS, EXPORT_ROUNDS = 60, 30
# What is wanted of the whole way of the typical commit, of one record and some 5 kB.
WANTED_US = 130
WHOLE = "the whole way, from frame to row"
CEILING = ("read the frame", "slice and hash the CAR", "signature, K-256")
EVERYTHING = CollectionFilter(["*"])
LIMITS = ExportLimits(max_bytes=1 << 31, max_records=10_000_000)

Run = tuple[str, bool]  # a step's name, and whether ours or the bare one


class Sample(NamedTuple):
    """One commit and what each step of its verification needs."""

    frame: bytes
    message: CommitMessage
    key: PublicKey
    car: Car
    commit: Commit
    changes: list[Change]
    verified: VerifiedCommit
    records: list[bytes]
    point: coincurve.PublicKey
    der: bytes


def samples() -> list[Sample]:
    """Make commits of about 5 kB, all signed with K-256 as nearly all real ones are."""
    world = World(seed=1, start_us=None)
    keys = {account.did: account.repo.key.public for account in generate(world, ACCOUNTS, RECORDS)}
    made = []
    for frame in commit_frames(world, COMMITS):
        message = read_frame(frame)
        assert isinstance(message, CommitMessage)
        if keys[message.did].curve == K256:
            made.append(_sample(frame, message, keys[message.did]))
    return made


def _sample(frame: bytes, message: CommitMessage, key: PublicKey) -> Sample:
    car = read_car(message.blocks, max_blocks=MAX_COMMIT_BLOCKS)
    commit = read_commit(car.blocks[car.roots[0]])
    verified = verify_commit(message, key, now_us=now_us())
    r, s = (int.from_bytes(half, "big") for half in (commit.sig[:32], commit.sig[32:]))
    return Sample(
        frame=frame,
        message=message,
        key=key,
        car=car,
        commit=commit,
        changes=net_changes(message.ops),
        verified=verified,
        records=[op.block for op in verified.ops if op.block is not None],
        point=coincurve.PublicKey(key.point),
        der=encode_dss_signature(r, s),
    )


class Step(NamedTuple):
    """A part of the way of a commit, and the least that a library takes for the like of it."""

    run: Callable[[Sample], Any]
    bare: Callable[[Sample], Any] | None = None
    bare_name: str = ""


def steps(now: int) -> dict[str, Step]:
    """Return the steps in their order; together they are the whole way but for the glue."""
    return {
        "read the frame": Step(
            lambda s: read_frame(s.frame),
            lambda s: libipld.decode_dag_cbor_multi(s.frame),
            "decode as CBOR",
        ),
        "slice and hash the CAR": Step(
            lambda s: read_car(s.message.blocks, max_blocks=MAX_COMMIT_BLOCKS),
            lambda s: sha256(s.message.blocks).digest(),
            "sha256 of the same bytes",
        ),
        "read the commit": Step(lambda s: read_commit(s.commit.block)),
        "signature, K-256": Step(
            lambda s: check_signature(s.commit, s.key),
            lambda s: s.point.verify(s.der, s.commit.unsigned),
            "secp256k1 alone",
        ),
        "net changes of the ops": Step(lambda s: net_changes(s.message.ops)),
        "invert the tree": Step(lambda s: invert(s.commit.data, s.car.blocks, s.changes)),
        "records as JSON": Step(
            lambda s: [read_record(block) for block in s.records],
            lambda s: [libipld.decode_dag_cbor(block) for block in s.records],
            "decode as CBOR",
        ),
        "staging row, its records included": Step(
            lambda s: stage_commit(s.verified, EVERYTHING).row(0)
        ),
        WHOLE: Step(lambda s: _whole(s, now)),
    }


def _whole(sample: Sample, now: int) -> tuple[Any, ...]:
    """Do with a frame what a lane does, up to the row that is copied."""
    message = read_frame(sample.frame)
    assert isinstance(message, CommitMessage)
    return stage_commit(verify_commit(message, sample.key, now_us=now), EVERYTHING).row(0)


def split(commits: list[Sample]) -> dict[Run, list[float]]:
    """Return the microseconds that every step takes, ours and the bare ones, for each commit."""
    way = steps(now_us())
    runs = {(name, True): step.run for name, step in way.items()}
    runs |= {(name, False): step.bare for name, step in way.items() if step.bare is not None}
    return best_us(runs, commits)


def best_us(
    runs: dict[Run, Callable[[Sample], Any]], commits: Sequence[Sample]
) -> dict[Run, list[float]]:
    """Return the least time of every step for each commit.

    The steps take turns, so that a slow spell of the machine hits all of them.
    """
    best = {name: [float("inf")] * len(commits) for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            least = best[name]
            for number, commit in enumerate(commits):
                started_at = time.perf_counter()
                run(commit)
                least[number] = min(least[number], 1e6 * (time.perf_counter() - started_at))
    return best


def split_lines(us: dict[Run, list[float]], commits: list[Sample]) -> Iterator[str]:
    """Write the split: a line each step, beside the bare library's time in the same run."""
    size = fmean(len(sample.frame) for sample in commits)
    yield f"the way of a commit of {size:,.0f} bytes, µs of one core:"
    for name, step in steps(0).items():
        step_us = fmean(us[name, True])
        line = f"  {name:<38} {step_us:>8.1f}"
        if step.bare is not None:
            bare_us = fmean(us[name, False])
            line += f" {bare_us:>8.1f} {step.bare_name:<26} {step_us / bare_us:>5.2f} x"
        yield line
    whole, ceiling = fmean(us[WHOLE, True]), ceiling_us(us)
    single = [
        taken
        for taken, sample in zip(us[WHOLE, True], commits, strict=True)
        if len(sample.changes) == 1
    ]
    count = f"({len(single)} of {len(commits)}), wanted: <= {WANTED_US}"
    yield f"  {'of commits of one operation':<38} {fmean(single):>8.1f} {count}"
    rest = f"of which the whole way takes {whole / ceiling:.2f} x"
    yield f"  {'ceiling: signature, sha256, CBOR':<38} {ceiling:>8.1f} {rest}"


def ceiling_us(us: dict[Run, list[float]]) -> float:
    """Return what a commit would take if nothing were left to do but what libraries do."""
    return sum(fmean(us[name, False]) for name in CEILING)


def export_rate(account: Account) -> float:
    """Return the records a second of a full verification of one export."""
    data, now, best = account.repo.export(), now_us(), float("inf")
    for _ in range(EXPORT_ROUNDS):
        started_at = time.process_time()
        read_export(
            io.BytesIO(data), account.did, account.repo.key.public, now_us=now, limits=LIMITS
        )
        best = min(best, time.process_time() - started_at)
    return EXPORT_RECORDS / best


def slicing_rate(account: Account) -> float:
    """Return the records a second when an export's blocks are hashed and nothing else."""
    data, best = account.repo.export(), float("inf")
    for _ in range(EXPORT_ROUNDS):
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
        1e6 / fmean(us[WHOLE, True]),
        "commits/s",
        1e6 / ceiling_us(us),
        "bare signature, sha256 and CBOR",
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
