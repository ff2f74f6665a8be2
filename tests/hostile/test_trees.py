"""Trees that lie, signed by the account: in a commit, behind a #sync, and in an export."""

import pytest

from sync.atproto.car import write_car
from sync.simnet import Account
from sync.simnet.repo import Write
from sync.simnet.tree import Tree
from tests.hostile.forge import commit_body, create_op, sign, sync_body
from tests.hostile.trees import (
    RECORD,
    RECORD_CID,
    TREE_LIES,
    TreeLie,
    first_leaves,
    grow,
    open_tree,
)
from tests.hostile.world import HostileWorld, Lie, lie
from tests.integration.rig import NOTE

pytestmark = pytest.mark.timeout(240)


def plant(_world: HostileWorld, account: Account) -> None:
    """Give an account the records that the lies need around them."""
    account.apply_writes(
        [
            Write.create(NOTE, key.decode().partition("/")[2], block)
            for key, block in first_leaves().items()
        ]
    )


def in_commit(told: TreeLie) -> Lie:
    """Tell a tree in a #commit: the account signed it, so the repo is fetched at once (D-03)."""

    def tell(world: HostileWorld, account: Account) -> None:
        root, nodes, key = told.tell(account.repo.head.tree)
        ops = [create_op(key.decode(), RECORD)]
        blocks = {**nodes, RECORD_CID: RECORD}
        body = commit_body(account, sign(account, root), ops, blocks)
        world.say(account.did, "#commit", body)

    return lie(f"{told.name}, in a commit", tell, told.reason, first=plant, is_refetched=True)


def in_export(told: TreeLie) -> Lie:
    """Tell a tree by #sync, and again when the service comes to fetch it."""

    def tell(world: HostileWorld, account: Account) -> None:
        root, nodes, _ = told.tell(account.repo.head.tree)
        commit = sign(account, root)
        records = {**account.repo.records, RECORD_CID: RECORD}
        blocks = [(commit[1], commit[2]), *nodes.items(), *records.items()]
        world.serve_car(account, write_car(commit[1], blocks))
        world.say(account.did, "#sync", sync_body(account, commit))

    reasons = ("sync_differs", f"fetch_{told.reason}")
    return lie(f"{told.name}, in an export", tell, *reasons, first=plant, is_refetched=True)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_tree_that_was_only_opened_is_still_the_same(layer: int) -> None:
    tree = Tree.build(dict.fromkeys(first_leaves(), RECORD_CID))
    grown = grow(tree, layer)
    blocks: dict[bytes, bytes] = {}
    assert grown.root.encode(blocks) == tree.put(grown.key, RECORD_CID).cid
    assert open_tree(tree.cid, dict(tree.blocks())).encode({}) == tree.cid


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.scenario("A-42")
@pytest.mark.rule("D-03", "IV-06", "SN-08", "FA-14", "MS-01", "MS-03", "MS-04", "MS-05", "MS-06")
@pytest.mark.rule("MS-07", "MS-08", "MS-11", "MS-12", "MS-14", "MS-15", "MS-19", "MS-22")
async def test_no_tree_that_lies_is_believed(world: HostileWorld) -> None:
    await world.play([tell(each) for each in TREE_LIES for tell in (in_commit, in_export)])
