"""The reference implementation of repos as a process that answers questions (`peer.mjs`)."""

import base64
from pathlib import Path
from typing import Any

from tests.network.conversation import Conversation
from tests.network.install import ensure_installed

FOLDER = Path(__file__).parent


class PeerError(Exception):
    """The reference implementation refused what it was asked about."""


class Peer(Conversation):
    """One process; it keeps the repo that `start` makes."""

    def __init__(self) -> None:
        super().__init__(ensure_installed(FOLDER), "peer.mjs")

    def ask(self, what: str, **details: Any) -> dict[str, Any]:
        """Return an answer, CARs in it as bytes; raises PeerError."""
        answer = self.put({"ask": what, **details})
        if "error" in answer:
            raise PeerError(answer["error"])
        if "car" in answer:
            answer["car"] = base64.b64decode(answer["car"])
        return answer
