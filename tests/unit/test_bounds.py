"""No input exhausts the machine: each case has a process with little memory and little time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.network.install import skip_loudly
from tests.unit.bounded import BOMBS

ROOT = Path(__file__).parents[2]
MEMORY_MIB = 64
SECONDS = 5


def run(case: str, *, memory_mib: int = MEMORY_MIB, seconds: int = SECONDS) -> dict[str, str]:
    """Run a case of bounded.py; returns how each of its inputs ended."""
    if not Path("/proc/self/statm").exists():
        skip_loudly("NOT TESTED under memory limits: this system has none that count")
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.bounded", case, str(memory_mib), str(seconds)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"ended with {done.returncode} at: {done.stderr[-2000:]}"
    outcomes: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return outcomes


@pytest.mark.rule("CB-15", "CB-16", "ES-19")
@pytest.mark.scenario("A-34")
@pytest.mark.parametrize(
    "case",
    ["strict gate", "fast gate", "objects", "frame", "record", "commit", "node",
     "entries of a node", "header of a CAR"],
)  # fmt: skip
def test_no_reader_believes_what_a_length_claims(case: str) -> None:
    outcomes = run(case)
    assert outcomes.keys() == BOMBS.keys()
    assert "taken" not in outcomes.values()


@pytest.mark.rule("OP-09", "IN-13")
def test_nested_json_exhausts_no_stack() -> None:
    assert "taken" not in run("nested JSON").values()


@pytest.mark.rule("ES-19")
def test_small_things_in_great_numbers_are_few_objects_or_refused() -> None:
    assert run("many items", memory_mib=160, seconds=20) == {
        "a frame of five million maps": "too_many_items",
        "five million objects": "too_many_items",
        "a record of a million maps": "taken",
    }


@pytest.mark.rule("CA-01", "CA-04", "CA-05", "CA-14")
@pytest.mark.scenario("A-41")
def test_a_file_is_never_in_memory_however_large_it_is_or_says() -> None:
    assert run("files", memory_mib=128) == {
        "a header of 1 GB": "bad_car_header",
        "a section of 4 GB": "car_too_big",
        "a section that is cut": "car_cut",
        "a node of 100 MB": "missing_node",
        "half a million empty blocks": "too_many_blocks",
    }


@pytest.mark.rule("MS-16", "MS-17", "IV-08")
@pytest.mark.scenario("A-43", "A-44")
def test_a_tree_of_the_largest_nodes_is_judged_in_time() -> None:
    assert run("nodes") == {
        "10,000 keys in a node": "node_too_big",
        "a full node, 200 records changed": "taken",
        "one subtree at every link": "key_order",
    }


@pytest.mark.rule("CA-14", "MS-10")
def test_keys_that_are_small_in_the_file_are_not_let_into_memory_by_the_million() -> None:
    assert run("long keys", memory_mib=48) == {
        "long keys": "records_too_big",
        "long keys that are no paths": "taken",
    }


@pytest.mark.rule("CA-14", "OP-02", "FA-14")
@pytest.mark.scenario("A-41")
def test_an_answer_without_end_ends_at_the_cap() -> None:
    outcomes = run("answers", memory_mib=256, seconds=10)
    assert outcomes == {
        "a header without end": "unreachable",
        "headers without end": "unreachable",
        "a document without end": "too_big",
        "a document that says 1 TB": "too_big",
        "chunks without end": "too_big",
        "a chunk of 2^60": "too_big",
        "an export without end": "too_big",
        "an export of zeros, packed": "too_big",
    }


@pytest.mark.rule("ES-15", "ES-16", "FA-14")
@pytest.mark.scenario("A-01")
def test_a_message_without_end_ends_at_the_cap() -> None:
    outcomes = run("streams", memory_mib=96, seconds=10)
    assert [outcomes[name] for name in ("a header without end", "headers without end")] == [
        "TimeoutError: timed out during opening handshake"
    ] * 2
    for name in ("a frame of 2^62", "fragments without end"):
        assert "message too big" in outcomes[name]
