"""`standpipe inspect`: judge a CAR file or captured frames, offline."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from sync.atproto.cid import format_cid, is_blessed
from sync.atproto.export import ExportLimits
from sync.atproto.identity import DidDocument, parse_did_documents
from sync.captures import ByteOrder, Capture, CapturedFrame
from sync.cli.app import EXIT_FAILED
from sync.cli.context import choose_settings, json_option, readable_file
from sync.cli.output import counted, print_json, printable
from sync.config import Settings
from sync.errors import BadInput, IdentityError, UsageError
from sync.inspector import UNPROVEN, Inspector, Item, ItemOp

MAX_DOCUMENTS_BYTES = 64 << 20
SHOWN_OPS = 3
MAX_LINE = 400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@click.command("inspect")
@click.argument(
    "path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True, path_type=Path),
)
@click.option(
    "--did-documents",
    "documents_path",
    metavar="FILE",
    type=readable_file(),
    help="JSON with the DID documents of the accounts: an array, an object by DID, or one a line.",
)
@click.option(
    "--now", metavar="TIME", help="Judge revs as at this time, as in 2026-01-31T12:00:00Z."
)
@click.option(
    "--length-order",
    type=click.Choice(["big", "little"]),
    default="big",
    show_default=True,
    help="The byte order of the lengths before frames.",
)
@json_option
def inspect_command(
    *,
    path: Path,
    documents_path: Path | None,
    now: str | None,
    length_order: ByteOrder,
    as_json: bool,
) -> None:
    """Judge a CAR file or captured frames, without a database or a network.

    FILE is the export of a repo, or frames of a firehose, each behind its length as four bytes;
    either may be packed with zstd, and `-` is standard input. The same code judges as when the
    service stores things. Frames count as those of one connection, in their order.

    Verdicts:
      ok            everything is proven, and it continues what came before in the file
      ok-unchained  proven, but what it continues is not in the file
      unproven      sound, but nobody knows who signed it: --did-documents lacks the account
      unproven-unchained
                    the same, and what it continues is not in the file
      stale         not newer than what came before, and stepped over
      noted         #identity, #account and #info are not signed: sound, and proof of nothing
      dropped       of an account that is not active
      REASON [RULE] refused, as `standpipe problems` would count it, and by which rule

    It exits 0 when every verdict is ok, ok-unchained, stale or noted, else 1; 2 for wrong usage,
    and 5 when the file is neither of the two, or cut short.

    Examples:
      standpipe inspect alice.car --did-documents alice.json
      standpipe inspect frames.bin.zst --now 2026-01-31T12:00:00Z --json
    """
    settings = choose_settings()
    now_us = time.time_ns() // 1_000 if now is None else _read_time(now)
    documents = {} if documents_path is None else _read_documents(documents_path)
    verdicts: Counter[str] = Counter()
    is_good = True
    inspector = Inspector(documents, now_us=now_us)
    for frame, item in _inspect(path, inspector, settings, order=length_order):
        verdicts[item.place.verdict] += 1
        is_good = is_good and item.is_good
        if as_json:
            print_json(_as_json(frame, item))
        else:
            click.echo(_line(frame, item))
    if not as_json:
        click.echo(_summary(verdicts))
    if not is_good:
        raise click.exceptions.Exit(EXIT_FAILED)


def _inspect(
    path: Path, inspector: Inspector, settings: Settings, *, order: ByteOrder
) -> Iterator[tuple[CapturedFrame | None, Item]]:
    with ExitStack() as stack:
        is_input = str(path) == "-"
        file = sys.stdin.buffer if is_input else stack.enter_context(path.open("rb"))
        capture = Capture(file, "Standard input" if is_input else str(path))
        if capture.is_car:
            max_bytes, max_records = settings.max_repo_bytes, settings.max_repo_records
            limits = ExportLimits(max_bytes=max_bytes, max_records=max_records)
            whole = stack.enter_context(capture.seekable(max_bytes=max_bytes))
            yield None, inspector.judge_export(whole, limits=limits)
            return
        for frame in capture.frames(order):
            yield frame, inspector.judge_frame(frame)


def _read_time(text: str) -> int:
    """Read a time as microseconds, as revs have it."""
    try:
        time_read = datetime.fromisoformat(text)
    except ValueError:
        time_read = None
    if time_read is None or time_read.tzinfo is None:
        raise UsageError(f"{text!r} is no time with a zone: give it as 2026-01-31T12:00:00Z.")
    return (time_read - _EPOCH) // timedelta(microseconds=1)


def _read_documents(path: Path) -> dict[str, DidDocument]:
    with path.open("rb") as file:
        body = file.read(MAX_DOCUMENTS_BYTES + 1)
    if len(body) > MAX_DOCUMENTS_BYTES:
        raise BadInput(f"{path} is too long: keep the documents of accounts that are in the file.")
    try:
        return parse_did_documents(body)
    except IdentityError as error:
        raise BadInput(f"{path} does not hold DID documents ({error.detail}).") from error


def _line(frame: CapturedFrame | None, item: Item) -> str:
    """Write an item on one line for people."""
    number = "" if frame is None else f"{frame.number:>6}  "
    verdict, rule, detail = item.place
    is_refused = not item.is_good and verdict not in UNPROVEN.values()
    shown = f"{verdict} [{rule}]" if is_refused and rule else verdict
    who = " ".join(part for part in (item.did, item.rev) if part)
    about = "; ".join(part for part in (detail, _contents(item)) if part)
    return printable(f"{number}{item.kind:<9}  {shown:<18}  {who}  {about}".rstrip())[:MAX_LINE]


def _contents(item: Item) -> str:
    """Say what an item brings."""
    parts = []
    if item.kind == "#commit":
        ops = ", ".join(f"{op.action} {op.path}" for op in item.ops[:SHOWN_OPS])
        more = ", …" if len(item.ops) > SHOWN_OPS else ""
        parts.append(counted(len(item.ops), "op") + (f" ({ops}{more})" if ops else ""))
    if item.kind in ("#commit", "repo"):
        parts.append(counted(item.records, "record"))
    parts += [f"{number:,} {reason}" for reason, number in sorted(item.odd.items())]
    return ", ".join(parts)


def _summary(verdicts: Counter[str]) -> str:
    told = ", ".join(f"{number:,} {verdict}" for verdict, number in verdicts.most_common())
    hint = ""
    if not verdicts.keys().isdisjoint(UNPROVEN.values()):
        hint = " Signatures of unproven ones were not checked: give --did-documents."
    return printable(f"{counted(verdicts.total(), 'item')}: {told}.{hint}")


def _as_json(frame: CapturedFrame | None, item: Item) -> dict[str, Any]:
    return {
        "item": 1 if frame is None else frame.number,
        "offset": 0 if frame is None else frame.offset,
        "bytes": None if frame is None else frame.size,
        "kind": item.kind,
        "verdict": item.place.verdict,
        "rule": item.place.rule or None,
        "detail": item.place.detail or None,
        "seq": item.seq,
        "did": item.did,
        "rev": item.rev,
        "since": item.since,
        "ops": [_op_as_json(op) for op in item.ops],
        "records": item.records,
        "odd_records": item.odd,
    }


def _op_as_json(op: ItemOp) -> dict[str, Any]:
    cid = op.cid
    return {
        "action": op.action,
        "path": op.path,
        "cid": format_cid(cid) if cid is not None and is_blessed(cid) else cid,
        "reason": op.reason,
        "record": None if op.record is None else json.loads(op.record),
    }
