"""Both oracles as processes that answer question after question."""

from collections.abc import Sequence
from typing import Any

from tests.network.conversation import Conversation
from tests.network.install import ensure_installed


class Oracle(Conversation):
    """One oracle script."""

    def __init__(self, script: str, options: Sequence[str] = ()) -> None:
        super().__init__(ensure_installed(), script, ["--stdin", *options])

    def ask(self, pds_url: str, did: str) -> dict[str, Any]:
        """Say what a repo holds; fails when its export does not verify."""
        answer = self.put({"pds": pds_url, "did": did})
        assert "error" not in answer, answer
        assert not answer.get("bad"), f"{did}: its export does not verify"
        return answer
