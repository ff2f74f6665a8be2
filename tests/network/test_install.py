"""What the harness says where no network can run."""

import platform
import sys
from pathlib import Path

import pytest

from tests.network import install


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert install.missing_prerequisite() == "needs node"


def test_another_processor_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert install.missing_prerequisite() == "needs Linux x86-64, this is linux aarch64"


def test_an_old_node_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for tool in ("node", "npm", "g++", "make", "python3"):
        put_tool(tmp_path, tool, "echo v18.19.0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert install.missing_prerequisite() == "needs node 20 or newer, this is v18.19.0"


def test_a_machine_without_network_skips_but_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "missing_prerequisite", lambda: "needs node")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"NOT TESTED against a real PDS.* needs node"):
        install.requires_network()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"NOT TESTED against a real PDS.* needs node"):
        install.requires_network()


def test_a_failed_install_shows_its_log_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_tool(tmp_path, "npm", "echo the registry is away; exit 7")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("STANDPIPE_TEST_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        with pytest.raises(install.NetworkStartError, match=r"(?s)exited 7.*registry is away"):
            install.ensure_installed()


def put_tool(folder: Path, name: str, script: str) -> None:
    """Put a program on the PATH that does what the shell script says."""
    tool = folder / name
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
