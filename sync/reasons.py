"""What each reason in `sync.problems` means and what to do about it.

A reason is a word, or a word behind a prefix: `fetch_` (a repo could not be fetched because of
it), `identity_` (a DID document), `apply_` (PostgreSQL's SQLSTATE for an event it refused). The
manual's page is written from here, and a test finds reasons of the code that are missing.
"""

from typing import NamedTuple

DROPPED = (
    "Nothing: the message is dropped and the repo keeps its last verified state, until a later "
    "one shows what is missing. Many from one host are a bug there: tell its operator."
)
REFETCHED = "Nothing: the repo is fetched again. If one account repeats it, its host has a bug."
RECONNECTED = "Nothing: the source is connected again. If it repeats, tell the host's operator."
KEPT = "Nothing: the record's bytes are kept in `raw`, and count as any other record's."
RETRIED = "Nothing: it is tried again, later each time."
REPORT = "Report it, with the sample of bytes in `sync_priv.problem_totals`: a bug of ours."


class Reason(NamedTuple):
    """One reason: what happened, and what to do."""

    meaning: str
    advice: str


_MESSAGE = {
    "account_denied": "a word on an account that its own PDS denied when it was asked",
    "bad_commit": "a commit object that lacks a field or has a malformed one",
    "bad_did": "a message that names no account",
    "bad_field": "a message that lacks a field or has one of another type",
    "bad_key": "an account's key that is no usable K-256 or P-256 key",
    "bad_prev_data": "a commit whose `prevData` is no CID of a tree",
    "bad_seq": "a message whose sequence number is none",
    "bad_signature": "a signature that the account's current key did not make",
    "bad_since": "a commit whose `since` is no rev",
    "blocks_too_big": "a commit with more blocks than the protocol allows",
    "did_mismatch": "a commit signed for another account than the message names",
    "error_frame": "the server ended the stream with an error",
    "future_rev": "a rev that lies in the future",
    "info_message": "a notice of the server that we do not know",
    "missing_commit": "a message without the block of its commit",
    "no_key": "an account whose DID document shows no signing key",
    "poison_frame": "a frame that breaks the connection each time it comes: it was passed over",
    "rev_mismatch": "a message that names another rev than its commit",
    "sync_too_big": "a #sync message with more than a commit in it",
    "too_many_items": "a frame of more values than any honest one has",
    "too_many_ops": "a commit with more operations than the protocol allows",
    "unexpected_error": "something that no rule of ours foresaw",
    "unknown_message": "a type of message that we do not know",
    "wrong_host": "a PDS that speaks for an account which lives elsewhere",
}
_COMMIT = {
    "bad_op": "an operation that is malformed",
    "bad_path": "a record key or collection that the protocol forbids",
    "chain_break": "a commit that does not follow the one we have",
    "delete_not_in_tree": "a deleted record that is still in the tree",
    "held_overflow": "more, or larger, commits than are kept while a repo is fetched",
    "inversion_mismatch": "operations that do not lead from the previous tree to this one",
    "missing_prev": "an update or delete that does not say what was there",
    "missing_record": "a commit without the block of a record it writes",
    "op_not_in_tree": "an operation that the signed tree does not show",
    "records_too_big": "records that are larger together than is accepted",
    "sync_differs": "a #sync message with another tree than the one we have",
    # The tree and the file around it
    "bad_node": "a tree node that is malformed",
    "bad_node_link": "a tree node that links what is no node",
    "bad_prefix": "a key in a tree node that is compressed wrongly",
    "bad_record_link": "a tree node that links what is no record",
    "bare_root": "a root without entries above other nodes",
    "empty_node": "an empty node inside a tree",
    "key_order": "keys of a tree that are out of order or double",
    "key_too_long": "a key longer than the protocol allows",
    "missing_node": "a tree without one of its nodes",
    "node_too_big": "a tree node with more entries than is accepted",
    "root_mismatch": "a tree that is not the signed one",
    "tree_too_deep": "a tree deeper than is accepted",
    "wrong_layer": "a key on another layer of the tree than its hash says",
    "bad_car_header": "a CAR file with a malformed beginning",
    "bad_cid": "a malformed CID",
    "bad_varint": "a malformed length in a CAR file",
    "car_cut": "a CAR file that ends too early",
    "car_too_big": "a CAR file larger than is accepted",
    "hash_mismatch": "a block that is not what its CID says",
    "missing_block": "a CAR file without one of the blocks it needs",
    "too_slow": "an export that takes longer to verify than STANDPIPE_FETCH_TIMEOUT_S",
    "too_many_blocks": "a CAR file with more blocks than is accepted",
    "too_many_collections": "a repo that is the first to bring more than 1,000 collections",
    "too_many_records": "a repo with more records than STANDPIPE_MAX_REPO_RECORDS",
}
_RECORD = {
    "ambiguous": "a map that JSON would read as a link or as bytes",
    "bad_blob": "a blob reference that is malformed",
    "bad_link": "a link that is no CID of the protocol",
    "bad_type": "a `$type` that is no text",
    "float": "a number with a fraction, which the data model forbids",
    "integer": "an integer beyond 64 bits",
    "not_a_map": "a record that is no object",
    "not_canonical": "DAG-CBOR that is not in its one canonical form",
    "not_cbor": "bytes that are no DAG-CBOR",
    "not_encodable": "a value that DAG-CBOR cannot hold",
    "nul": "text with U+0000, which PostgreSQL cannot hold in jsonb",
    "record_link": "a record's link that does not lead to DAG-CBOR",
    "too_big": "a record or answer larger than is accepted",
    "too_deep": "nesting deeper than is accepted",
}
_FRAME = {
    "bad_frame": "a frame that cannot be read",
    "frame_too_big": "a frame larger than STANDPIPE_MAX_FRAME_BYTES",
    "seq_fell": "a sequence number that goes back",
    "text_frame": "a text frame, where the protocol has binary ones",
}
_FETCH = {
    "RepoDeactivated": "its host says that the account is deactivated",
    "RepoSuspended": "its host says that the account is suspended",
    "RepoTakendown": "its host says that the account is taken down",
    "mismatch": "the export was not staged completely",
    "no_pds": "its DID document names no PDS",
    "rate_limited": "its host asks us to wait",
    "refused": "its host answers with an error",
    "refused_address": "its host's address is private, or otherwise not for us",
    "repo_not_found": "its host does not know it",
    "server_error": "its host is in trouble",
    "stale_export": "the export is older than what we know",
    "timed_out": "its host took longer than STANDPIPE_FETCH_TIMEOUT_S",
    "unreachable": "its host does not answer",
    "unsigned": "an import without a proof would have replaced a tracked repo",
}
_IDENTITY = {
    "malformed": "the DID document is malformed",
    "not_found": "nobody knows the DID",
    "timed_out": "the directory took too long while a lane waited",
    "tombstoned": "the DID was given up; the account counts as deleted",
    "transient": "the directory, or the account's own web server, does not answer",
}

REASONS = {
    **{name: Reason(meaning, DROPPED) for name, meaning in _MESSAGE.items()},
    **{name: Reason(meaning, REFETCHED) for name, meaning in _COMMIT.items()},
    **{name: Reason(meaning, KEPT) for name, meaning in _RECORD.items()},
    **{name: Reason(meaning, RECONNECTED) for name, meaning in _FRAME.items()},
    "error_frame": Reason(
        _MESSAGE["error_frame"],
        "Nothing, unless it was FutureCursor: then the server lost its history and the source is "
        "stopped. `standpipe source rewind URL 0`, then `standpipe source resume URL`.",
    ),
    "unexpected_error": Reason(_MESSAGE["unexpected_error"], REPORT),
}
_FETCH_REASONS = {
    **{name: Reason(meaning, RETRIED) for name, meaning in _FETCH.items()},
    "spool": Reason(
        "there is no room for the download", "Free some space, or set STANDPIPE_SPOOL_DIR."
    ),
    "too_many_records": Reason(_COMMIT["too_many_records"], "Raise the setting, or untrack it."),
    "too_many_collections": Reason(
        _COMMIT["too_many_collections"],
        "Nothing: it is fetched again, later each time, and loads once it has fewer. To have it "
        "at once, track fewer collections.",
    ),
    "too_big": Reason(
        "the export is larger than STANDPIPE_MAX_REPO_BYTES", "Raise it, or untrack the repo."
    ),
}
_IDENTITY_REASONS = {name: Reason(meaning, RETRIED) for name, meaning in _IDENTITY.items()}


def explain(reason: str) -> Reason:
    """Return what a reason means; for one nobody foresaw, that it should be reported."""
    prefix, _, rest = reason.partition("_")
    if prefix == "identity" and rest in _IDENTITY_REASONS:
        return _IDENTITY_REASONS[rest]
    if prefix == "apply":
        return Reason(
            f"PostgreSQL refused an event with SQLSTATE {rest}; its repo is fetched instead", REPORT
        )
    if prefix == "fetch":
        if rest in _FETCH_REASONS:
            return _FETCH_REASONS[rest]
        inner = explain(rest)
        return Reason(f"the repo could not be fetched: {inner.meaning}", RETRIED)
    return REASONS.get(reason, Reason("not documented", REPORT))


def render_reference() -> str:
    """Return the manual's page on reasons."""
    parts = [
        "# Problems",
        "",
        "Whatever is refused, or odd, is counted in `sync.problems` by reason, host and account.",
        "`standpipe problems` shows it in the words of this page, which is written from",
        "`sync/reasons.py` by `make schema`.",
        "",
    ]
    fetches = {f"fetch_{name}": reason for name, reason in _FETCH_REASONS.items()}
    identities = {f"identity_{name}": reason for name, reason in _IDENTITY_REASONS.items()}
    for title, names in (
        ("Messages", _MESSAGE),
        ("Commits and exports", _COMMIT),
        ("Records", _RECORD),
        ("Connections", _FRAME),
    ):
        parts += _table(title, {name: REASONS[name] for name in names})
    parts += _table("Fetches", fetches)
    parts += [
        "Other reasons behind `fetch_` are those of commits, exports and identities.",
        "",
    ]
    parts += _table("Identities", identities)
    parts += ["## PostgreSQL", "", f"`apply_` and a SQLSTATE: {explain('apply_22P05').meaning}."]
    return "\n".join([*parts, REPORT, ""])


def _table(title: str, reasons: dict[str, Reason]) -> list[str]:
    lines = [f"## {title}", "", "| reason | what happened | what to do |", "|---|---|---|"]
    lines += [f"| `{name}` | {each.meaning} | {each.advice} |" for name, each in reasons.items()]
    return [*lines, ""]
