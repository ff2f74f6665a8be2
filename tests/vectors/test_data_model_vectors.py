"""The official data model files: JSON, CBOR and CID of a value agree in both directions."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from sync.atproto import records
from sync.atproto.cbor import CborError
from sync.atproto.cid import cid_for, format_cid


def _read(folder: Path, name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((folder / "data-model" / name).read_text())
    assert cases
    return cases


@pytest.mark.rule("DM-11")
def test_fixtures_agree_in_json_cbor_and_cid(interop: Path) -> None:
    for case in _read(interop, "data-model-fixtures.json"):
        block = base64.b64decode(case["cbor_base64"] + "==")
        assert records.json_to_block(case["json"]) == block
        assert records.second_codec_block(case["json"]) == block
        assert format_cid(cid_for(block)) == case["cid"]
        assert json.loads(records.read_record(block).value or "") == case["json"]


@pytest.mark.rule("DM-08")
def test_valid_values_pass_the_writing_check(interop: Path) -> None:
    for case in _read(interop, "data-model-valid.json"):
        records.check_data_model(case["json"])
        assert records.read_record(records.json_to_block(case["json"])).reason is None


@pytest.mark.rule("DM-04")
@pytest.mark.rule("DM-07")
@pytest.mark.rule("RC-07")
def test_invalid_values_fail_the_writing_check(interop: Path) -> None:
    for case in _read(interop, "data-model-invalid.json"):
        with pytest.raises(CborError):
            records.check_data_model(case["json"])
            pytest.fail(f"accepted: {case['note']}")
