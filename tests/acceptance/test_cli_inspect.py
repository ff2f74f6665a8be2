"""`standpipe inspect`: what it prints about files of every kind, and how it ends."""

import json
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sync.atproto.frame import write_frame
from sync.cli import inspecting
from sync.simnet import Account, World
from tests.acceptance.commands import PROGRAM, Standpipe, clean_environment, standpipe
from tests.unit.captures import relay_frames, write_capture, zstd
from tests.unit.refusals import FRAMES
from tests.unit.repos import DID, KEY, NOW_US, Change, some_records

__all__ = ["standpipe"]

NOTE = "com.example.note"
NOW = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=NOW_US)).isoformat()
_BESIDE_THE_CHECKOUT = Path(__file__).parents[3] / "shared"
DOCUMENT = {
    "id": DID,
    "verificationMethod": [
        {
            "id": "#atproto",
            "type": "Multikey",
            "controller": DID,
            "publicKeyMultibase": KEY.public.multikey,
        }
    ],
}


class Recording:
    """A small network that was recorded, and the files a user would have of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World(seed=5)
        self.alice = self.world.create_account("alice.test")
        self.alice.create(NOTE, {"$type": NOTE, "text": "a"}, rkey="a")
        self.alice.update(NOTE, {"$type": NOTE, "text": "b"}, rkey="a")
        self.alice.create(NOTE, {"$type": NOTE, "text": "\0"}, rkey="odd")

    def file(self, data: bytes, name: str = "f") -> str:
        (self.folder / name).write_bytes(data)
        return name

    def frames(self) -> str:
        return self.file(write_capture(relay_frames(self.world)), "frames.bin")

    def documents(self) -> str:
        document = self.world.directory.document(self.alice.did)
        return self.file(json.dumps([document]).encode(), "documents.json")


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path)


def test_an_honest_recording_is_told_line_by_line(
    standpipe: Standpipe, recording: Recording
) -> None:
    result = standpipe("inspect", recording.frames(), "--did-documents", recording.documents())
    assert (result.code, result.err) == (0, "")
    did, revs = recording.alice.did, [line.split()[4] for line in result.out.splitlines()[2:7]]
    odd = f"1 op (create {NOTE}/odd), 1 record, 1 nul"
    assert result.out.splitlines() == [
        f"     1  #identity  noted               {did}  handle alice.test",
        f"     2  #account   noted               {did}  active",
        f"     3  #commit    ok-unchained        {did} {revs[0]}  0 ops, 0 records",
        f"     4  #sync      stale               {did} {revs[0]}  {revs[0]} came before",
        f"     5  #commit    ok                  {did} {revs[2]}  1 op (create {NOTE}/a), 1 record",
        f"     6  #commit    ok                  {did} {revs[3]}  1 op (update {NOTE}/a), 1 record",
        f"     7  #commit    ok                  {did} {revs[4]}  {odd}",
        "7 items: 3 ok, 2 noted, 1 ok-unchained, 1 stale.",
    ]


def test_json_has_ops_and_records(standpipe: Standpipe, recording: Recording) -> None:
    documents = ["--did-documents", recording.documents()]
    lines = standpipe("inspect", recording.frames(), *documents, "--json").json_lines()
    assert [line["item"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    update, odd = lines[5], lines[6]
    assert update == {
        "item": 6,
        "offset": lines[4]["offset"] + 4 + lines[4]["bytes"],
        "bytes": len(relay_frames(recording.world)[5]),
        "kind": "#commit",
        "verdict": "ok",
        "rule": None,
        "detail": None,
        "seq": 6,
        "did": recording.alice.did,
        "rev": update["rev"],
        "since": lines[4]["rev"],
        "ops": [
            {
                "action": "update",
                "path": f"{NOTE}/a",
                "cid": update["ops"][0]["cid"],
                "reason": None,
                "record": {"$type": NOTE, "text": "b"},
            }
        ],
        "records": 1,
        "odd_records": {},
    }
    assert update["ops"][0]["cid"].startswith("bafyrei")
    assert (odd["ops"][0]["record"], odd["ops"][0]["reason"]) == (None, "nul")
    assert odd["odd_records"] == {"nul": 1}


def test_without_did_documents_it_says_that_nothing_is_proven(
    standpipe: Standpipe, recording: Recording
) -> None:
    result = standpipe("inspect", recording.frames())
    assert result.code == 1
    assert "unproven-unchained" in result.out
    assert "signature not checked: no DID document" in result.out
    assert "Signatures of unproven ones were not checked: give --did-documents." in result.out
    assert " ok " not in result.out


def test_an_export_is_judged_plain_packed_and_from_a_pipe(
    standpipe: Standpipe, recording: Recording
) -> None:
    data, documents = recording.alice.repo.export(), recording.documents()
    for name in (
        recording.file(data, "alice.car"),
        recording.file(zstd.compress(data), "alice.car.zst"),
    ):
        result = standpipe("inspect", name, "--did-documents", documents)
        assert result.code == 0
        who = f"{recording.alice.did} {recording.alice.rev}"
        assert result.out.splitlines() == [
            f"repo       ok                  {who}  2 records, 1 nul",
            "1 item: 1 ok.",
        ]
    piped = subprocess.run(
        [PROGRAM, "inspect", "-", "--json"],
        input=data,
        cwd=recording.folder,
        env=clean_environment(),
        capture_output=True,
        check=False,
    )
    line = json.loads(piped.stdout)
    assert (piped.returncode, line["kind"], line["verdict"]) == (1, "repo", "unproven")
    assert (line["records"], line["odd_records"], line["bytes"]) == (2, {"nul": 1}, None)


@pytest.mark.rule("FA-02", "FA-13")
def test_every_refusal_is_told_with_its_rule(standpipe: Standpipe, recording: Recording) -> None:
    documents = recording.file(json.dumps(DOCUMENT).encode(), "documents.json")
    arguments = ["--did-documents", documents, "--now", NOW]
    for reason, (make, rule) in FRAMES.items():
        name = recording.file(write_capture([make()], "little"))
        result = standpipe("inspect", name, *arguments, "--length-order", "little")
        assert result.code == 1, result
        assert f"{reason} [{rule}]" in result.out
        assert result.out.splitlines()[1:] == [f"1 item: 1 {reason}."]


@pytest.mark.rule("CM-16")
def test_the_time_to_judge_by_can_be_given(standpipe: Standpipe, recording: Recording) -> None:
    arguments = ["inspect", recording.file(Change({}, some_records([1])).export()), "--json"]
    [at_the_time] = standpipe(*arguments, "--now", NOW).json_lines()
    [before] = standpipe(*arguments, "--now", "2020-01-01T00:00:00Z").json_lines()
    assert (at_the_time["verdict"], before["verdict"]) == ("unproven", "future_rev")
    for wrong in ("yesterday", "2020-01-01T00:00:00", "2020-01-01", ""):
        standpipe(*arguments, "--now", wrong).assert_one_sentence(2, "is no time with a zone")


@pytest.mark.parametrize(
    "write",
    [
        json.dumps,
        lambda documents: json.dumps({document["id"]: document for document in documents}),
        lambda documents: "\n".join(map(json.dumps, documents)),
        lambda documents: json.dumps(documents[0]),
    ],
    ids=["array", "object", "lines", "one"],
)
def test_did_documents_come_in_any_common_form(
    write: Callable[[list[dict[str, Any]]], str], standpipe: Standpipe, recording: Recording
) -> None:
    bob: Account = recording.world.create_account("bob.test")
    documents = [recording.world.directory.document(a.did) for a in (recording.alice, bob)]
    name = recording.file(write(documents).encode(), "documents.json")
    export = recording.file(recording.alice.repo.export())
    assert standpipe("inspect", export, "--did-documents", name).code == 0


@pytest.mark.parametrize(
    "text",
    ["", "garbage", "[1]", "7", '{"a": 1}', '[{"id": "did:plc:x"}', '[{"id": 3}]', "[" * 9_999],
)
def test_files_that_hold_no_did_documents_are_refused(
    text: str, standpipe: Standpipe, recording: Recording
) -> None:
    name = recording.file(text.encode(), "documents.json")
    result = standpipe("inspect", recording.frames(), "--did-documents", name)
    result.assert_one_sentence(5, "documents.json does not hold DID documents")


def test_too_many_did_documents_are_refused(
    standpipe: Standpipe, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspecting, "MAX_DOCUMENTS_BYTES", 100)
    result = standpipe("inspect", recording.frames(), "--did-documents", recording.documents())
    result.assert_one_sentence(5, "documents.json is too long")


def test_a_document_under_another_name_is_refused(
    standpipe: Standpipe, recording: Recording
) -> None:
    name = recording.file(json.dumps({recording.alice.did: DOCUMENT}).encode(), "documents.json")
    result = standpipe("inspect", recording.frames(), "--did-documents", name)
    result.assert_one_sentence(5, "about another DID")


@pytest.mark.rule("FA-14")
@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "is empty"),
        (b"no frames at all", "holds neither a CAR nor captured frames"),
        (b"\xff\xff\xff\xff", "holds neither"),
        (b"\x28\xb5\x2f\xfdgarbage", "is damaged, or no zstd file"),
    ],
)
def test_files_of_another_kind_are_one_sentence(
    data: bytes, part: str, standpipe: Standpipe, recording: Recording
) -> None:
    standpipe("inspect", recording.file(data)).assert_one_sentence(5, f"f {part}")


def test_a_cut_recording_is_judged_as_far_as_it_goes(
    standpipe: Standpipe, recording: Recording
) -> None:
    recording.file(write_capture(relay_frames(recording.world))[:-1])
    result = standpipe("inspect", "f", "--did-documents", recording.documents(), "--json")
    assert result.code == 5
    assert len(result.json_lines()) == 6
    assert "f is cut short: it ends within frame 7" in result.err


@pytest.mark.parametrize("arguments", [["missing"], ["."], [], ["f", "--length-order", "middle"]])
def test_wrong_usage_exits_2(
    arguments: list[str], standpipe: Standpipe, recording: Recording
) -> None:
    recording.file(b"x")
    result = standpipe("inspect", *arguments)
    assert (result.code, "Traceback" in result.err) == (2, False)


def test_what_strangers_wrote_is_shown_and_not_sent(
    standpipe: Standpipe, recording: Recording
) -> None:
    frame = write_frame("#x\x1b]0;gotcha\x07", {"seq": 1})
    name = recording.file(write_capture([frame]))
    for more in ([], ["--json"]):
        out = standpipe("inspect", name, *more).out
        assert "gotcha" in out
        assert "\x1b" not in out


def real_captures() -> list[Path]:
    """Return recordings of the real network, where somebody has put some."""
    named = os.environ.get("ATPROTO_CAPTURES")
    folders = [_BESIDE_THE_CHECKOUT / "vectors", _BESIDE_THE_CHECKOUT / "field"]
    return sorted(
        path
        for folder in ([Path(named)] if named else folders)
        for path in folder.rglob("*")
        if path.suffix in {".frames", ".bin", ".zst"}
    )


def test_recordings_of_the_real_network_are_judged(standpipe: Standpipe) -> None:
    captures = real_captures()
    if not captures:
        pytest.skip(
            "no captured frames: set ATPROTO_CAPTURES to a folder of recordings (.bin, .frames, "
            ".zst) of a firehose, each frame behind its length"
        )
    for path in captures:
        result = standpipe("inspect", str(path), "--json")
        assert result.code in (0, 1), result.err
        lines = result.json_lines()
        assert lines
        assert "unexpected_error" not in {line["verdict"] for line in lines}


@pytest.mark.parametrize(("name", "records"), [("empty", 0), ("tiny", 8), ("little", 278)])
def test_real_exports_are_sound_and_unproven_without_their_documents(
    name: str, records: int, standpipe: Standpipe
) -> None:
    folder = Path(os.environ.get("ATPROTO_VECTORS") or _BESIDE_THE_CHECKOUT / "vectors")
    path = folder / "cars" / f"{name}.car"
    if not path.is_file():
        pytest.skip(f"no {path.name}: set ATPROTO_VECTORS to a folder with real exports in cars/")
    result = standpipe("inspect", str(path), "--json")
    [line] = result.json_lines()
    assert (result.code, line["verdict"], line["records"]) == (1, "unproven", records)
