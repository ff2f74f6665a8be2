"""The tutorial's commands do what it says: every block is run, every output compared."""

from pathlib import Path

import pytest

from tests.acceptance.terminals import ROOT, on_free_ports, opened_terminals, read_blocks, run_block

PAGE = ROOT / "docs" / "tutorial" / "first-hour.md"


@pytest.mark.slow
def test_every_command_of_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    text, _ = on_free_ports(PAGE, *range(2600, 2605))
    blocks = list(read_blocks(text))
    assert len(blocks) > 23
    with opened_terminals(tmp_path / "first-hour") as terminals:
        for block in blocks:
            run_block(terminals, block)
