"""Views of the official lexicons, with the official records, good and bad, in them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.sql.driver import did
from tests.sql.lexicon_reading import READERS, as_stored, reader_of
from tests.sql.readers import Session, World
from tests.sql.views import create, refusal, store
from tests.vectors.conftest import interop, vectors

__all__ = ["interop", "vectors"]

RECORD = "example.lexicon.record"


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / "lexicon" / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["record-data-valid.json", "record-data-invalid.json"])
def test_official_records_are_shown_as_their_lexicon_says(
    db: Session, interop: Path, name: str
) -> None:
    """Only types and datetimes are judged; a record that breaks another rule is shown as it is."""
    World(db)
    db.execute("set local timezone = 'UTC'")
    lexicon = read(interop, "catalog/record.json")
    assert lexicon["id"] == RECORD
    create(db, "official", lexicon, nsid=RECORD)
    row = db.execute("select columns from sync.collection_views").fetchone()
    assert row is not None
    names = {column["property"]: column["name"] for column in row["columns"]}
    properties = lexicon["defs"]["main"]["record"]["properties"]
    assert names.keys() == properties.keys()
    cases = read(interop, name)
    for number, case in enumerate(cases):
        store(db, 0, f"r{number}", case["data"], collection=RECORD)
    shown = {
        each["rkey"]: each
        for each in db.execute(
            "select * from sync_views.official where did = %s", [did(0)]
        ).fetchall()
    }
    assert len(shown) == len(cases)
    for number, case in enumerate(cases):
        value = as_stored(case["data"])
        for prop, column in names.items():
            reader = READERS[reader_of(properties[prop], lexicon)]
            assert shown[f"r{number}"][column] == reader(value.get(prop)), (case["name"], prop)


@pytest.mark.parametrize(
    "name", ["lexicon-valid.json", "lexicon-invalid.json", "query.json", "procedure.json",
             "subscription.json", "permission-set.json"],
)  # fmt: skip
def test_official_lexicons_make_a_view_or_are_refused(
    db: Session, interop: Path, name: str
) -> None:
    """One of a record makes a view, whatever else is wrong with it; no other does."""
    World(db)
    if name.startswith("lexicon"):
        lexicons = [case["lexicon"] for case in read(interop, name)]
    else:
        lexicons = [read(interop, f"catalog/{name}")]
    for number, lexicon in enumerate(lexicons):
        nsid = lexicon.get("id")
        main = lexicon["defs"].get("main") or {}
        record = main.get("record") if main.get("type") == "record" else None
        view = f"official_{number}"
        if isinstance(record, dict) and isinstance(nsid, str) and "properties" in record:
            made = create(db, view, lexicon, nsid=nsid)
            assert len(made) == len(record["properties"])
        else:
            said = refusal(db, view, lexicon, nsid=nsid if isinstance(nsid, str) else None)
            assert said.sqlstate == "SY002"
