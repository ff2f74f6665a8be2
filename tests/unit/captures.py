"""Write frames and captures as somebody may have recorded them."""

import sys
from collections.abc import Iterable
from typing import Any, Literal

from sync.atproto import cbor
from sync.atproto.frame import CommitMessage, SyncMessage, write_frame
from sync.simnet import World

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["frame_of", "relay_frames", "write_capture", "zstd"]


def frame_of(message: CommitMessage | SyncMessage, **changed: Any) -> bytes:
    """Write the frame of a message; `changed` replaces fields of its body."""
    body: dict[str, Any] = {"seq": message.seq, "rev": message.rev, "time": message.time}
    body["blocks"] = message.blocks
    if isinstance(message, SyncMessage):
        return write_frame("#sync", {**body, "did": message.did, **changed})
    body |= {
        "repo": message.did,
        "since": message.since,
        "commit": cbor.Link(message.commit),
        "ops": [
            {"action": op.action, "path": op.path, "cid": _link(op.cid), "prev": _link(op.prev)}
            for op in message.ops
        ],
        "prevData": _link(message.prev_data),
        "tooBig": False,
        "rebase": False,
        "blobs": [],
    }
    return write_frame("#commit", {**body, **changed})


def write_capture(frames: Iterable[bytes], order: Literal["big", "little"] = "big") -> bytes:
    """Put each frame behind its length."""
    return b"".join(len(frame).to_bytes(4, order) + frame for frame in frames)


def relay_frames(world: World) -> list[bytes]:
    """Return what the relay of a simulated network has told."""
    return [event.frame for event in world.relay.events()]


def _link(cid: bytes | None) -> cbor.Link | None:
    return None if cid is None else cbor.Link(cid)
