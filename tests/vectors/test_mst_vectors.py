"""The official vectors of the tree: heights, prefixes, example keys."""

import json
from pathlib import Path

import pytest

from sync.atproto import mst
from sync.atproto.cid import cid_for
from sync.atproto.node import read_node, write_node


@pytest.mark.rule("MS-02")
def test_every_key_has_its_official_height(interop: Path) -> None:
    cases = json.loads((interop / "mst" / "key_heights.json").read_text())
    assert cases
    for case in cases:
        assert mst.key_layer(case["key"].encode()) == case["height"], case["key"]


@pytest.mark.rule("MS-08")
def test_keys_share_their_official_prefix(interop: Path) -> None:
    cases = json.loads((interop / "mst" / "common_prefix.json").read_text())
    usable = 0
    for case in cases:
        keys = [case["left"].encode(), case["right"].encode()]
        if keys[0] >= keys[1] or not keys[0]:
            continue  # no two keys of one node can look like that
        usable += 1
        value = cid_for(b"")
        block = write_node(keys, [value, value], [None, None, None])
        assert read_node(block).keys == keys
        rest = keys[1][case["len"] :]
        tail = bytes((0x40 + len(rest),)) + rest + b"\x61p" + bytes((case["len"],))
        assert b"\x61k" + tail in block
    assert usable


@pytest.mark.rule("MS-02")
def test_the_example_keys_carry_their_layer_in_their_name(interop: Path) -> None:
    """Keys such as B3/561023: the letter orders them, the digit is the layer."""
    keys = (interop / "mst" / "example_keys.txt").read_text().split()
    assert keys
    for key in keys:
        assert mst.key_layer(key.encode()) == int(key[1])
    leaves = {key.encode(): cid_for(key.encode()) for key in keys}
    root, blocks = mst.build(leaves)
    assert list(mst.walk(root, blocks.get)) == sorted(leaves.items())
