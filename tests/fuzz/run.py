"""Fuzz all targets, or some, for a while or until Ctrl-C: `make fuzz`.

    python -m tests.fuzz.run --seconds 3600 cbor node

The targets take turns. What a run finds new grows in `.fuzz/`, where the next run goes on; the
corpus in the repository is only read. The first input that breaks a promise ends the run.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.seeds import KEPT
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".fuzz"
TURN_S = 60
# One input may take this long, and the process this much memory: both are promises as well.
INPUT_S = 10
MEMORY_MIB = 1024
MAX_INPUT_BYTES = 16_384
_OVERTIME_S = 60


@dataclass(frozen=True, slots=True)
class Turn:
    """How one turn of a target went; `finding` is the input that broke a promise."""

    target: str
    runs: int
    finding: Path | None
    text: str


def fuzz(target: str, seconds: int, work: Path) -> Turn:
    """Fuzz one target for some seconds."""
    grown, findings = work / "corpus" / target, work / "findings"
    grown.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    options = {
        "max_total_time": seconds,
        "timeout": INPUT_S,
        "rss_limit_mb": MEMORY_MIB,
        "max_len": MAX_INPUT_BYTES,
        "print_final_stats": 1,
        "artifact_prefix": f"{findings}/{target}-",
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.child", target),
            *(f"-{name}={value}" for name, value in options.items()),
            *(str(grown), str(KEPT / target)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds + _OVERTIME_S,
        check=False,
    )
    text = done.stdout + done.stderr
    runs = re.search(r"stat::number_of_executed_units: (\d+)", text)
    found = sorted(set(findings.iterdir()) - before)
    if done.returncode and not found:
        raise RuntimeError(f"the fuzzer of {target} ended with {done.returncode}:\n{text[-3000:]}")
    return Turn(target, int(runs[1]) if runs else 0, found[0] if found else None, text)


def turns(targets: Sequence[str], seconds: int | None) -> Iterator[tuple[str, int]]:
    """Yield whose turn it is and for how long, until the time is over."""
    started = time.monotonic()
    turn_s = TURN_S if seconds is None else max(1, min(TURN_S, seconds // len(targets)))
    while seconds is None or time.monotonic() - started < seconds:
        for target in targets:
            yield target, turn_s


def main() -> None:
    """Fuzz as the command line says."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.run", description="Fuzz what strangers send.")
    parser.add_argument("targets", nargs="*", help=f"some of: {', '.join(TARGETS)} (all)")
    parser.add_argument("--seconds", type=int, help="how long, all together (until Ctrl-C)")
    options = parser.parse_args()
    unknown = set(options.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"no target is called {min(unknown)}: choose from {', '.join(TARGETS)}")
    try:
        for target, turn_s in turns(options.targets or sorted(TARGETS), options.seconds):
            turn = fuzz(target, turn_s, WORK)
            print(f"{target}: {turn.runs} inputs in {turn_s} s", flush=True)
            if turn.finding is not None:
                print(turn.text[-3000:])
                print(f"A promise is broken by {turn.finding}: once it is mended, keep the input")
                sys.exit(f"in {(KEPT / target).relative_to(ROOT)}/ under a name that says why.")
    except KeyboardInterrupt:
        print("stopped")


if __name__ == "__main__":
    main()
