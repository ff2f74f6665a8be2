"""The command line with a network: handles, the service, imports, proofs."""

import json
import os
import pty
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sync.embedded import EmbeddedPostgres
from tests.acceptance.commands import (
    PROGRAM,
    RemoteSimnet,
    Standpipe,
    clean_environment,
    end,
    on_network,
    read_line,
    remote_simnet,
    run_program,
    standpipe,
    started_program,
    wait_until,
)

__all__ = ["on_network", "standpipe"]

NOTE = "com.example.note"
POST = "app.bsky.feed.post"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteSimnet]:
    """Return a network that the tests share."""
    folder = Path(tmp_path_factory.mktemp("simnet"))
    with remote_simnet(folder, "--accounts", "4", "--records", "30", "--seed", "11") as network:
        yield network


@pytest.fixture
def car(network: RemoteSimnet, tmp_path: Path) -> Path:
    """Return the file of the first account's repo."""
    path = tmp_path / "alice.car"
    path.write_bytes(network.export(network.dids[0]))
    return path


def all_synchronized(on_network: Standpipe, count: int) -> bool:
    [overview] = on_network("status", "--json").json_lines()
    synchronized: int = overview["status"]["synchronized"]
    return synchronized == count


def test_the_network_announces_itself_and_ends_when_told(tmp_path: Path) -> None:
    with started_program("simnet", "--accounts", "1", folder=tmp_path) as process:
        described = json.loads(read_line(process))
        assert described["accounts"][0]["did"].startswith("did:plc:")
        assert len(described["pds"]) == 2
        assert end(process, signal.SIGTERM) == 0
    assert (tmp_path / "program.log").read_text() == ""


def test_a_taken_port_is_one_sentence(network: RemoteSimnet, tmp_path: Path) -> None:
    port = network.pds_urls[0].rpartition(":")[2]
    result = run_program("simnet", "--port", port, folder=tmp_path)
    result.assert_one_sentence(2, port, "is not free")
    run_program("simnet", "--port", "65535", folder=tmp_path).assert_one_sentence(2, "lower")


def test_a_handle_is_looked_up(on_network: Standpipe, network: RemoteSimnet) -> None:
    account = network.accounts[0]
    [told] = on_network("track", f"@{account['handle'].upper()}", "--json").json_lines()
    assert told == {"dids": [account["did"]], "new_repos": 1, "new_collections": 0}


def test_a_handle_of_nobody_is_one_sentence(on_network: Standpipe) -> None:
    result = on_network("track", "nobody.pds0.test")
    result.assert_one_sentence(2, "nobody.pds0.test", "belongs to nobody")


def test_servers_that_do_not_answer_are_one_sentence(on_network: Standpipe) -> None:
    result = on_network("track", "alice.pds0.test", STANDPIPE_HANDLE_BASE_URLS="http://127.0.0.1:1")
    result.assert_one_sentence(6, "alice.pds0.test", "use the DID")


def test_the_service_backfills_follows_and_drains(
    on_network: Standpipe, network: RemoteSimnet, clone: str, tmp_path: Path
) -> None:
    account = network.accounts[1]
    assert on_network("track", *network.dids, "--collection", "*").code == 0
    environment = network.environment(clone)
    with started_program("run", folder=tmp_path, environment=environment) as process:
        wait_until(lambda: all_synchronized(on_network, 4), "the backfill")
        network.control("create", did=account["did"], collection=NOTE, value={"n": 1}, rkey="a")
        sql = f"select value->>'n' as n from sync.records where collection = '{NOTE}'"
        wait_until(lambda: on_network("query", "--json", sql).json_lines(), "the live commit")
        assert end(process) == 0
    log = [json.loads(line) for line in (tmp_path / "program.log").read_text().splitlines()]
    assert [line["event"] for line in log if line["logger"] == "run"] == ["started", "stopped"]
    verified = on_network("verify", *network.dids)
    assert verified.code == 0
    assert [line.split()[1] for line in verified.out.splitlines()] == ["whole"] * 4
    drawn = on_network("verify", "--sample", "3", "--json")
    assert drawn.code == 0
    answers = {line["did"]: line["answer"] for line in drawn.json_lines()}
    assert answers
    assert set(answers) <= set(network.dids)
    assert set(answers.values()) == {"whole"}
    [repo] = on_network("status", account["handle"], "--json").json_lines()
    assert repo["did"] == account["did"]
    event = on_network(
        "tail", "--from", "beginning", "--no-follow", "--json", "--collection", NOTE
    ).json_lines()[-1]
    assert (event["record"]["live"], event["record"]["record"]) == (True, {"n": 1})


def test_on_a_terminal_it_shows_its_progress(
    on_network: Standpipe, network: RemoteSimnet, clone: str, tmp_path: Path
) -> None:
    on_network("track", *network.dids)
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "run"],
        cwd=tmp_path,
        env=clean_environment(TERM="xterm", COLUMNS="160", **network.environment(clone)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    try:
        shown = ""
        while "4 repos fetched, 0 running" not in shown:
            ready, _, _ = select.select([master], [], [], 60)
            assert ready, shown
            shown += os.read(master, 65_536).decode(errors="replace")
        process.send_signal(signal.SIGTERM)
        while select.select([master], [], [], 0.2)[0] or process.poll() is None:
            if select.select([master], [], [], 0)[0]:
                shown += os.read(master, 65_536).decode(errors="replace")
        assert process.wait() == 0, shown
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(terminal)
        os.close(master)
    assert "commits applied" in shown
    assert "synchronized" in shown
    assert "Traceback" not in shown


def test_ctrl_c_drains_too(network: RemoteSimnet, clone: str, tmp_path: Path) -> None:
    environment = network.environment(clone)
    with started_program("run", folder=tmp_path, environment=environment) as process:
        wait_until(lambda: "started" in (tmp_path / "program.log").read_text(), "the start")
        assert end(process, signal.SIGINT) == 0


def test_a_killed_embedded_server_is_started_again(network: RemoteSimnet, tmp_path: Path) -> None:
    environment = network.environment("")
    server = EmbeddedPostgres(tmp_path / "standpipe-data")

    def asks() -> bool:
        sql = "select kind from sync.source_status"
        return "relay" in run_program("query", sql, folder=tmp_path, environment=environment).out

    with started_program("run", folder=tmp_path, environment=environment) as process:
        wait_until(lambda: "connected" in (tmp_path / "program.log").read_text(), "the stream")
        first = server.postmaster_pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: server.postmaster_pid not in {None, first}, "another server")
        wait_until(asks, "an answer")
        assert "started again" in (tmp_path / "program.log").read_text()
        assert end(process) == 0
    assert server.postmaster_pid is None


def test_a_second_service_shares_the_work(
    on_network: Standpipe, network: RemoteSimnet, clone: str, tmp_path: Path
) -> None:
    environment = network.environment(clone) | {"STANDPIPE_LANES": "2"}
    with started_program("run", folder=tmp_path, environment=environment) as process:
        wait_until(lambda: is_read(on_network), "the first service reads")
        folder = tmp_path / "second"
        folder.mkdir()
        with started_program("run", folder=folder, environment=environment) as second:
            said = folder / "program.log"
            wait_until(lambda: "reading lanes" in said.read_text(), "the second one has a share")
            process.kill()
            wait_until(lambda: '"lanes": [0, 1]' in said.read_text(), "it takes over")
            assert end(second) == 0
            assert "Traceback" not in said.read_text()


def is_read(on_network: Standpipe) -> bool:
    [overview] = on_network("status", "--json").json_lines()
    return any(source["seq"] is not None for source in overview["sources"])


@pytest.mark.parametrize("source", ["not a url", "https://pds.example.com/with/a/path", "ftp://x"])
def test_a_source_that_is_none_is_one_sentence(source: str, on_network: Standpipe) -> None:
    on_network("run", "--source", source).assert_one_sentence(2, "is not a source")
    assert sources_of(on_network) == set()


def test_a_source_without_encryption_is_refused_outside_development(
    standpipe: Standpipe, clone: str
) -> None:
    url = "http://pds.example.com"
    result = standpipe("run", "--source", url, STANDPIPE_DATABASE_URL=clone)
    result.assert_one_sentence(2, "is not encrypted", "STANDPIPE_ALLOW_PRIVATE_HOSTS")


def test_the_chosen_sources_are_kept(
    on_network: Standpipe, network: RemoteSimnet, clone: str, tmp_path: Path
) -> None:
    arguments = ["run", "--source-kind", "pds"]
    for url in network.pds_urls:
        arguments += ["--source", url]
    environment = network.environment(clone)
    with started_program(*arguments, folder=tmp_path, environment=environment) as process:
        wait_until(lambda: len(sources_of(on_network)) == 2, "both sources")
        assert end(process) == 0
    assert {kind for _, kind in sources_of(on_network)} == {"pds"}


def sources_of(on_network: Standpipe) -> set[tuple[str, str]]:
    [overview] = on_network("status", "--json").json_lines()
    return {(source["url"], source["kind"]) for source in overview["sources"]}


# import and verify ------------------------------------------------------------------------------


def test_an_import_with_the_right_key_is_whole(
    on_network: Standpipe, network: RemoteSimnet, car: Path
) -> None:
    account = network.accounts[0]
    [imported] = on_network(
        "import", str(car), "--signing-key", account["signing_key"], "--json"
    ).json_lines()
    assert (imported["did"], imported["trust"]) == (account["did"], "verified")
    assert imported["created"] == imported["records"] == 30
    assert on_network("verify", account["did"]).out.split()[1] == "whole"
    again = on_network("import", str(car), "--signing-key", account["signing_key"])
    assert "0 created, 0 updated, 0 deleted" in again.out


def test_an_import_looks_the_key_up(on_network: Standpipe, car: Path) -> None:
    assert on_network("import", str(car)).code == 0


def test_an_import_takes_the_key_from_a_document(
    on_network: Standpipe, network: RemoteSimnet, car: Path, tmp_path: Path
) -> None:
    account = network.accounts[0]
    document: dict[str, Any] = {
        "id": account["did"],
        "alsoKnownAs": [f"at://{account['handle']}"],
        "verificationMethod": [
            {
                "id": f"{account['did']}#atproto",
                "type": "Multikey",
                "controller": account["did"],
                "publicKeyMultibase": account["signing_key"].removeprefix("did:key:"),
            }
        ],
    }
    path = tmp_path / "did.json"
    path.write_text(json.dumps(document))
    assert on_network("import", str(car), "--did-document", str(path)).code == 0
    path.write_text("{}")
    on_network("import", str(car), "--did-document", str(path)).assert_one_sentence(
        5, "did.json", "is not the DID document"
    )


def test_an_unsigned_import_says_so_wherever_one_looks(
    on_network: Standpipe, network: RemoteSimnet, car: Path
) -> None:
    did = network.dids[0]
    assert "(unsigned)" in on_network("import", str(car), "--unsigned").out
    verified = on_network("verify", did)
    assert (verified.code, verified.out.split()[1]) == (1, "unsigned")
    [repo] = on_network("status", did, "--json").json_lines()
    assert repo["trust"] == "unsigned"


def test_a_wrong_key_loads_nothing(on_network: Standpipe, network: RemoteSimnet, car: Path) -> None:
    key = network.accounts[1]["signing_key"]
    result = on_network("import", str(car), "--signing-key", key)
    result.assert_one_sentence(5, "alice.car", "is not signed by the key")
    assert_nothing_stored(on_network)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_file_loads_nothing(
    kept: float, on_network: Standpipe, network: RemoteSimnet, car: Path
) -> None:
    whole = car.read_bytes()
    car.write_bytes(whole[: int(len(whole) * kept)])
    key = network.accounts[0]["signing_key"]
    on_network("import", str(car), "--signing-key", key).assert_one_sentence(5, "alice.car")
    assert_nothing_stored(on_network)


def test_a_changed_byte_loads_nothing(
    on_network: Standpipe, network: RemoteSimnet, car: Path
) -> None:
    damaged = bytearray(car.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    car.write_bytes(damaged)
    key = network.accounts[0]["signing_key"]
    on_network("import", str(car), "--signing-key", key).assert_one_sentence(5, "alice.car")
    assert_nothing_stored(on_network)


def test_a_key_that_is_none_is_one_sentence(on_network: Standpipe, car: Path) -> None:
    result = on_network("import", str(car), "--signing-key", "zebra")
    result.assert_one_sentence(2, "is not a signing key")


def test_a_record_changed_behind_our_back_is_found(
    on_network: Standpipe, network: RemoteSimnet, car: Path, clone: str
) -> None:
    did = network.dids[0]
    on_network("import", str(car), "--signing-key", network.accounts[0]["signing_key"])
    run_sql(clone, "update sync.stored_records set value = '{\"forged\": 1}' where rkey = 'self'")
    verified = on_network("verify", did)
    assert verified.code == 1
    assert "broken: app.bsky.actor.profile/self" in verified.out
    run_sql(clone, "delete from sync.stored_records where rkey = 'self'")
    [told] = on_network("verify", did, "--json").json_lines()
    assert told["answer"].startswith("broken: ")


def test_a_filtered_repo_says_that_it_is(
    on_network: Standpipe, network: RemoteSimnet, clone: str, tmp_path: Path
) -> None:
    did = network.dids[2]
    on_network("track", did, "--collection", POST)
    environment = network.environment(clone)
    with started_program("run", folder=tmp_path, environment=environment) as process:
        wait_until(lambda: all_synchronized(on_network, 1), "the backfill")
        assert end(process) == 0
    verified = on_network("verify", did)
    assert (verified.code, verified.out.split()[1]) == (0, "filtered")


def test_verify_refuses_strangers(on_network: Standpipe, network: RemoteSimnet) -> None:
    on_network("verify", network.dids[3]).assert_one_sentence(2, "is not tracked")


def assert_nothing_stored(on_network: Standpipe) -> None:
    for view in ("records", "repo_status", "change_log"):
        [row] = on_network("query", "--json", f"select count(*) as n from sync.{view}").json_lines()
        assert row == {"n": 0}, view


def run_sql(url: str, statement: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute(statement.encode())
