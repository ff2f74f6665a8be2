"""Take one check away after the other, and name the test that goes red: `make mutate`.

A check whose loss no test notices is not proven by any: it could be lost tomorrow.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue

import click

from tests.mutations.checkout import BASELINE_TIMEOUT_S, Checkout
from tests.mutations.patches import BadPatch, Patch, read_patches


@dataclass(frozen=True, slots=True)
class Result:
    """How one patch came out: `red` is the test that noticed it, `fault` why that is in doubt."""

    patch: str
    rules: tuple[str, ...]
    red: str | None
    fault: str | None
    seconds: float


@click.command()
@click.argument("names", nargs=-1)
@click.option("-j", "--jobs", default=1, show_default=True, help="How many copies to work in.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a patch.")
@click.option("--skip-baseline", is_flag=True, help="Believe that the tests are green untouched.")
def main(names: tuple[str, ...], jobs: int, as_json: bool, skip_baseline: bool) -> None:
    """Apply each patch of tests/mutations alone, run its tests, and see one of them fail.

    \b
    python -m tests.mutations                       all of them, some minutes
    python -m tests.mutations -j 2 keys_high_s      only this one
    """
    try:
        patches = _choose(names)
        with tempfile.TemporaryDirectory(prefix="standpipe-mutations-") as folder:
            Path(folder).chmod(0o755)  # the account that PostgreSQL runs as has to pass
            results = _run(Path(folder), patches, jobs, as_json=as_json, is_sure=skip_baseline)
    except BadPatch as error:
        raise click.ClickException(str(error)) from error
    survivors = [result for result in results if result.red is None]
    if not as_json:
        rules = {rule for result in results for rule in result.rules}
        click.echo(f"{len(results)} patches of {len(rules)} rules, {len(survivors)} unnoticed")
    sys.exit(1 if survivors else 0)


def _choose(names: Sequence[str]) -> list[Patch]:
    patches = read_patches()
    unknown = set(names) - {patch.name for patch in patches}
    if unknown:
        raise BadPatch(f"tests/mutations holds no {', '.join(sorted(unknown))}.")
    return [patch for patch in patches if not names or patch.name in names]


def _run(
    folder: Path, patches: Sequence[Patch], jobs: int, *, as_json: bool, is_sure: bool
) -> list[Result]:
    """Work through the patches in copies of the checkout, as many at a time as there are jobs."""
    free: SimpleQueue[Checkout] = SimpleQueue()
    checkouts = [Checkout(_made(folder / str(number))) for number in range(jobs)]
    for checkout in checkouts:
        free.put(checkout)
    if not is_sure:
        tests = sorted({test for patch in patches for test in patch.tests})
        untouched = checkouts[0].run(tests, timeout_s=BASELINE_TIMEOUT_S)
        if untouched.red or untouched.fault:
            raise click.ClickException(
                f"Without any patch {untouched.red or untouched.fault}: mend that first."
            )

    def try_one(patch: Patch) -> Result:
        checkout = free.get()
        try:
            result = _try(checkout, patch)
        finally:
            free.put(checkout)
        click.echo(json.dumps(asdict(result)) if as_json else _line(result))
        return result

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(try_one, patches))


def _try(checkout: Checkout, patch: Patch) -> Result:
    started_at = time.monotonic()
    red, fault = None, None
    try:
        with checkout.patched(patch):
            verdict = checkout.run(patch.tests)
        red, fault = verdict.red, verdict.fault
    except BadPatch as error:
        fault = str(error)
    if red is None and fault is None:
        fault = "no test notices: write the one that does"
    return Result(patch.name, patch.rules, red, fault, round(time.monotonic() - started_at, 1))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _line(result: Result) -> str:
    verdict = result.red or f"UNNOTICED: {result.fault}"
    return f"{result.patch:36} {' '.join(result.rules):30} {result.seconds:6.1f} s  {verdict}"


if __name__ == "__main__":
    main()
