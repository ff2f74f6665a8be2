"""The tree: one encoding a node, one tree a set of leaves, and every lie about it refused."""

import contextlib
import random
import time
from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sync.atproto import cbor, mst, node
from sync.atproto.cid import cid_for
from sync.atproto.node import MstError, read_node, replace_children, write_node
from tests.unit.repos import keys_by_layer

VALUE = cid_for(b"\xa0")
RAW = cid_for(b"", codec=0x55)
L0 = keys_by_layer(0, 4)
L1 = keys_by_layer(1, 2)
L2 = keys_by_layer(2, 1)


def raw(entries: list[dict[str, object]], left: object = None, **extra: object) -> bytes:
    return cbor.encode({"e": entries, "l": left, **extra})


def entry(key: bytes, shared: int = 0, right: object = None) -> dict[str, object]:
    return {"k": key, "p": shared, "t": right, "v": cbor.Link(VALUE)}


def walked(root: bytes, blocks: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return list(mst.walk(root, blocks.get))


def node_of(*keys: bytes, children: list[bytes | None] | None = None) -> tuple[bytes, bytes]:
    ordered = sorted(keys)
    block = write_node(ordered, [VALUE] * len(keys), children or [None] * (len(keys) + 1))
    return cid_for(block), block


@pytest.mark.rule("MS-11", "CM-22")
@pytest.mark.scenario("A-46")
def test_the_empty_tree_has_the_known_root() -> None:
    root, blocks = mst.build({})
    assert root == mst.EMPTY_ROOT
    assert root.hex() == "017112209dfefe61dd76ea3dcae5023880b08379d57adf20482d6fdbe2759289f647677b"
    assert walked(root, blocks) == []


@pytest.mark.rule("MS-02", "MS-19")
@given(st.dictionaries(st.binary(min_size=1, max_size=40), st.just(VALUE), max_size=60))
def test_walking_gives_back_what_was_built(leaves: dict[bytes, bytes]) -> None:
    root, blocks = mst.build(leaves)
    assert walked(root, blocks) == sorted(leaves.items())
    assert all(cid_for(block) == cid for cid, block in blocks.items())


@pytest.mark.rule("MS-19")
def test_the_tree_does_not_depend_on_the_order_of_the_leaves() -> None:
    leaves = {b"com.example.a/%d" % n: VALUE for n in range(300)}
    shuffled = list(leaves.items())
    random.Random(1).shuffle(shuffled)
    assert mst.build(dict(shuffled)) == mst.build(leaves)


@pytest.mark.rule("MS-01")
@given(st.dictionaries(st.binary(min_size=1, max_size=300), st.booleans(), max_size=12))
@example({VALUE: True, b"\x12\x20" + bytes(32): False})
@example({b"\xa4\x61k\x41a\x61p\x00\x61t\xf6\x61v": True})
@example({b"a" * 23: True, b"a" * 24: True, b"a" * 279: False, b"b" * 1024: False})
def test_reading_a_node_undoes_writing_it(shape: dict[bytes, bool]) -> None:
    keys = sorted(shape)
    children = [VALUE if shape[key] else None for key in keys]
    written = (keys, [VALUE] * len(keys), [None, *children])
    block = write_node(*written)
    assert read_node(block)[:3] == written
    assert cbor.encode(cbor.decode(block)) == block


@pytest.mark.rule("MS-18", "D-09")
@pytest.mark.parametrize(
    "link", [b"\x01\x55\x12\x20" + bytes(32), b"\x12\x20" + bytes(32), b"\x01"]
)
def test_record_links_of_any_form_are_kept_as_they_are(link: bytes) -> None:
    written = ([b"a/b", b"a/c"], [link, VALUE], [None, None, VALUE])
    assert read_node(write_node(*written))[:3] == written


@pytest.mark.rule("MS-01", "FA-14")
@given(st.binary(max_size=200))
def test_a_node_that_is_read_encodes_to_the_same_bytes(block: bytes) -> None:
    try:
        read = read_node(b"\xa2\x61e" + block)
    except MstError:
        return
    assert write_node(*read[:3]) == b"\xa2\x61e" + block


@pytest.mark.rule("MS-01", "FA-14")
@given(st.data())
def test_a_changed_node_is_refused_or_another_canonical_node(data: st.DataObject) -> None:
    root, blocks = mst.build(dict.fromkeys((*L0, *L1), VALUE))
    block = bytearray(blocks[root])
    for _ in range(data.draw(st.integers(1, 3))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = read_node(bytes(block))
    except MstError:
        return
    assert write_node(*read[:3]) == block


@pytest.mark.rule("MS-01", "MS-04", "MS-06", "MS-07", "MS-08", "MS-09", "MS-10", "MS-15", "MS-22")
@pytest.mark.scenario("A-42")
@pytest.mark.parametrize(
    ("block", "reason"),
    [
        pytest.param(b"", "bad_node", id="empty"),
        pytest.param(raw([], x=1), "bad_node", id="extra field"),
        pytest.param(cbor.encode({"e": []}), "bad_node", id="no l"),
        pytest.param(raw([], cbor.Link(cid_for(b"", codec=0x55))), "bad_node_link", id="raw l"),
        pytest.param(raw([], VALUE), "bad_node_link", id="l is a byte string"),
        pytest.param(raw([{**entry(b"a/b"), "x": 1}]), "bad_node", id="extra entry field"),
        pytest.param(raw([{"k": b"a", "p": 0, "v": cbor.Link(VALUE)}]), "bad_node", id="no t"),
        pytest.param(raw([entry(b"a/b", 1)]), "bad_prefix", id="first p above 0"),
        pytest.param(raw([{**entry(b"a/b"), "p": -1}]), "bad_node", id="negative p"),
        pytest.param(raw([entry(b"a/b"), entry(b"c", 4)]), "bad_prefix", id="p too large"),
        pytest.param(raw([entry(b"a/b"), entry(b"c", 2**32)]), "bad_prefix", id="huge p"),
        pytest.param(raw([entry(b"a/b"), entry(b"a/c")]), "bad_prefix", id="p not maximal"),
        pytest.param(raw([entry(b"")]), "key_order", id="empty key"),
        pytest.param(raw([entry(b"b"), entry(b"a")]), "key_order", id="unsorted"),
        pytest.param(raw([entry(b"b"), entry(b"", 1)]), "key_order", id="duplicate"),
        pytest.param(raw([entry(b"a" * 1025)]), "key_too_long", id="key of 1025 bytes"),
        pytest.param(raw([{**entry(b"a"), "v": VALUE}]), "bad_node", id="v is a byte string"),
        pytest.param(raw([{**entry(b"a"), "v": b"a"}]), "bad_node", id="v is short bytes"),
        pytest.param(raw([{**entry(b"a"), "v": None}]), "bad_node", id="v is null"),
        pytest.param(raw([{**entry(b"a"), "p": False}]), "bad_node", id="p is false"),
        pytest.param(raw([{**entry(b"a"), "k": "a"}]), "bad_node", id="k is text"),
        pytest.param(raw([{**entry(b"a"), "k": cbor.Link(VALUE)}]), "bad_node", id="k is a link"),
        pytest.param(raw([entry(b"a", 0, VALUE)]), "bad_node_link", id="t is a byte string"),
        pytest.param(raw([entry(b"a", 0, cbor.Link(RAW))]), "bad_node_link", id="t is raw"),
        pytest.param(raw([{**entry(b"a"), "t": 0}]), "bad_node_link", id="t is a number"),
        pytest.param(raw([entry(b"a")]) + b"\x00", "bad_node", id="bytes left over"),
        pytest.param(b"\xa2\x61e\x98\x00\x61l\xf6", "bad_node", id="length not shortest"),
        pytest.param(b"\xa2\x61e\x9b" + b"\xff" * 8, "node_too_big", id="2^64-1 entries"),
        pytest.param(b"\xa2\x61e\x9a", "bad_node", id="cut in a length"),
    ],
)
def test_a_malformed_node_is_refused(block: bytes, reason: str) -> None:
    with pytest.raises(MstError) as caught:
        read_node(block)
    assert caught.value.reason == reason


@pytest.mark.rule("MS-16", "IV-08", "D-01")
@pytest.mark.scenario("A-44")
def test_a_node_may_have_8192_entries_and_no_more() -> None:
    keys = [b"a/%05d" % number for number in range(8_193)]
    block = write_node(keys[:-1], [VALUE] * 8_192, [None] * 8_193)
    assert len(read_node(block).keys) == 8_192
    with pytest.raises(MstError, match="node_too_big"):
        read_node(write_node(keys, [VALUE] * 8_193, [None] * 8_194))


@pytest.mark.rule("CB-16", "ES-19")
@pytest.mark.scenario("A-34")
@pytest.mark.parametrize("size", [4_000, 64_000])
def test_a_bomb_in_the_place_of_a_node_is_refused_cheaply(size: int) -> None:
    head = b"\x99" + (size - 4).to_bytes(2, "big")
    started = time.process_time()
    with pytest.raises(MstError):
        read_node((b"\xa2\x61e" + head * size)[:size])
    assert time.process_time() - started < 1


@pytest.mark.rule("MS-01", "MS-07", "MS-08", "MS-15", "MS-22", "CB-01")
def test_every_changed_byte_is_refused_or_makes_another_canonical_node() -> None:
    keys = [b"com.example.note/" + name for name in (b"1", b"11", b"2")]
    block = write_node(keys, [VALUE] * 3, [None, VALUE, None, VALUE])
    for at in range(len(block)):
        for byte in range(256):
            changed = block[:at] + bytes((byte,)) + block[at + 1 :]
            with contextlib.suppress(MstError):
                assert write_node(*read_node(changed)[:3]) == changed


@pytest.mark.rule("MS-01", "MS-22")
@pytest.mark.parametrize("name", [b"k", b"p", b"t", b"v", b"l", b"e"])
def test_a_node_has_these_fields_and_no_others(name: bytes) -> None:
    block = write_node([L0[0]], [VALUE], [None, None])
    assert block.count(b"\x61" + name) == 1
    with pytest.raises(MstError):
        read_node(block.replace(b"\x61" + name, b"\x61" + b"~"))


@pytest.mark.rule("CB-06", "CB-14", "MS-15")
def test_a_node_ends_with_its_link_and_every_link_begins_with_a_zero() -> None:
    block = write_node([L0[0]], [VALUE], [VALUE, VALUE])
    assert read_node(block).values == [VALUE]
    for name in (b"l", b"t", b"v"):
        head = b"\x61" + name + b"\xd8\x2a\x58\x25"
        assert block.count(head + b"\x00") == 1
        with pytest.raises(MstError):
            read_node(block.replace(head + b"\x00", head + b"\x01"))
    with pytest.raises(MstError):
        read_node(block + b"\x00")


@pytest.mark.rule("CB-08")
def test_a_record_link_has_at_most_a_hundred_bytes_and_not_none() -> None:
    for value in (b"", b"\x01" * 101):
        with pytest.raises(MstError, match="bad_record_link"):
            read_node(write_node([L0[0]], [value], [None, None]))
    assert read_node(write_node([L0[0]], [b"\x01" * 100], [None, None])).values == [b"\x01" * 100]


@pytest.mark.rule("MS-03", "MS-05", "MS-11", "MS-12", "MS-14", "MS-04")
@pytest.mark.scenario("A-42")
def test_lies_between_nodes_are_refused() -> None:
    low, low_block = node_of(L0[0])
    high, high_block = node_of(L1[0])
    empty, empty_block = node_of()
    bare, bare_block = node_of(children=[low])
    layer_1 = keys_by_layer(1, 50)
    last, last_block = node_of(max(L0))
    above = next(key for key in layer_1 if key > L0[0])
    below = next(key for key in layer_1 if key < max(L0))
    cases = [
        ("wrong_layer", node_of(L0[0], L1[0])),
        ("key_order", node_of(above, children=[None, low])),
        ("key_order", node_of(below, children=[last, None])),
        ("bare_root", node_of(children=[low])),
        ("empty_node", node_of(L1[0], children=[empty, None])),
        ("tree_too_deep", node_of(L0[1], children=[low, None])),
        ("tree_too_deep", node_of(above, children=[bare, None])),
    ]
    blocks = {low: low_block, high: high_block, last: last_block} | {
        empty: empty_block,
        bare: bare_block,
    }
    for reason, (root, block) in cases:
        with pytest.raises(MstError) as caught:
            walked(root, blocks | {root: block})
        assert caught.value.reason == reason


@pytest.mark.rule("MS-03", "MS-13")
def test_layers_are_never_skipped_but_may_be_bare() -> None:
    key = min(L0)
    low, low_block = node_of(key)
    above = next(k for k in keys_by_layer(2, 50) if k > key)
    skipping, skipping_block = node_of(above, children=[low, None])
    with pytest.raises(MstError, match="wrong_layer"):
        walked(skipping, {low: low_block, skipping: skipping_block})
    bare, bare_block = node_of(children=[low])
    root, root_block = node_of(above, children=[bare, None])
    blocks = {low: low_block, bare: bare_block, root: root_block}
    assert [k for k, _ in walked(root, blocks)] == [key, above]
    assert mst.build({key: VALUE, above: VALUE})[0] == root


@pytest.mark.rule("MS-13")
@pytest.mark.scenario("A-44")
def test_one_key_above_twelve_bare_layers_is_valid() -> None:
    blocks: dict[bytes, bytes] = {}
    builder = mst.TreeBuilder(keep=blocks)
    builder.add_leaf(L0[0], VALUE, layer=0)
    builder.add_leaf(L0[0] + b"~", VALUE, layer=12)
    root = builder.finish()
    assert len(blocks) == 13
    assert read_node(blocks[root]).keys == [L0[0] + b"~"]


@pytest.mark.rule("MS-17", "D-01")
def test_a_tree_has_as_many_layers_as_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    root, blocks = mst.build(dict.fromkeys(L2, VALUE))
    monkeypatch.setattr(mst, "MAX_LAYER", 2)  # no key of layer 64 was ever found
    assert walked(root, blocks) == [(L2[0], VALUE)]
    monkeypatch.setattr(mst, "MAX_LAYER", 1)
    with pytest.raises(MstError, match="tree_too_deep"):
        walked(root, blocks)


@pytest.mark.rule("MS-04")
@pytest.mark.scenario("A-43")
def test_a_node_that_is_shared_breaks_the_key_order() -> None:
    low, low_block = node_of(L0[0])
    above = next(k for k in keys_by_layer(1, 50) if k > L0[0])
    root, root_block = node_of(above, children=[low, low])
    with pytest.raises(MstError, match="key_order"):
        walked(root, {low: low_block, root: root_block})


@pytest.mark.rule("CA-10")
@pytest.mark.scenario("A-40")
def test_a_missing_subtree_is_an_error_and_not_a_shorter_tree() -> None:
    leaves = {b"com.example.a/%d" % n: VALUE for n in range(100)}
    root, blocks = mst.build(leaves)
    for cid in blocks:
        without = {other: block for other, block in blocks.items() if other != cid}
        with pytest.raises(MstError, match="missing_node"):
            walked(root, without)


def test_the_quick_and_the_careful_way_agree() -> None:
    leaves = {b"com.example.a/%d" % n: VALUE for n in range(2_000)}
    for block in mst.build(leaves)[1].values():
        quick, careful = node._read_usual(block), node._read_carefully(block)
        assert quick is not None
        assert quick[:3] == careful[:3]
        assert write_node(*quick[:3]) == block


@given(st.data())
def test_replacing_children_is_writing_the_node_anew(data: st.DataObject) -> None:
    links = st.none() | st.sampled_from([VALUE, mst.EMPTY_ROOT])
    values = st.sampled_from([VALUE, b"\x01", b"\x01" * 23, b"\x01" * 90])
    count = data.draw(st.integers(0, 6))
    keys = [b"key/%d" % number for number in range(count)]
    own = data.draw(st.lists(values, min_size=count, max_size=count))
    children = data.draw(st.lists(links, min_size=count + 1, max_size=count + 1))
    block = write_node(keys, own, children)
    changed = data.draw(st.dictionaries(st.integers(0, count), links))
    for index, link in changed.items():
        children[index] = link
    assert replace_children(read_node(block), changed) == write_node(keys, own, children)


@given(
    st.sets(
        st.binary(min_size=1, max_size=30) | st.text("abc/", min_size=1).map(str.encode),
        min_size=1,
        max_size=9,
    ),
    st.data(),
)
def test_changing_a_node_is_writing_it_anew(found: set[bytes], data: st.DataObject) -> None:
    keys = sorted(found)
    links = st.none() | st.sampled_from([VALUE, mst.EMPTY_ROOT])
    children = data.draw(st.lists(links, min_size=len(keys) + 1, max_size=len(keys) + 1))
    values = [VALUE] * len(keys)
    at = data.draw(st.integers(0, len(keys) - 1))
    less = (keys[:at] + keys[at + 1 :], values[1:], [*children[:at], VALUE, *children[at + 2 :]])
    other = (keys, [*values[:at], mst.EMPTY_ROOT, *values[at + 1 :]], children)
    whole = read_node(write_node(keys, values, children))
    for changed in (less, other, (keys, values, [*children[:at], VALUE, *children[at + 1 :]])):
        assert node.write_changed_node(whole, at, *changed) == write_node(*changed)
    back = (keys, values, [*children[:at], None, VALUE, *children[at + 2 :]])
    assert node.write_changed_node(read_node(write_node(*less)), at, *back) == write_node(*back)
