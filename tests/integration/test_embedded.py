"""The embedded server: started, shared, survived and stopped without touching anything else."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sync.embedded import EmbeddedPostgres, find_binaries
from sync.embedded.account import Account, readable_binaries
from sync.embedded.processes import is_alive, processes_in
from sync.errors import DatabaseUnavailable

CHECKOUT = Path(__file__).parents[2]
FAST = {"fsync": "off"}

# A process of its own that starts the server, says where, and waits for a line on its input.
USER = """
import sys
from pathlib import Path
from sync.embedded import EmbeddedPostgres
postgres = EmbeddedPostgres(Path(sys.argv[1]), settings={"fsync": "off"})
print(postgres.start(), flush=True)
sys.stdin.readline()
postgres.stop()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a data folder whose cluster exists already; each test leaves it stopped."""
    folder = tmp_path_factory.mktemp("embedded") / "data"
    with EmbeddedPostgres(folder, settings=FAST):
        pass
    yield folder
    assert processes_in(folder / "cluster") == []


@contextlib.contextmanager
def another_process(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run USER beside us until the end of the block, unless it ended before."""
    with subprocess.Popen(
        [sys.executable, "-c", USER, str(folder)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.communicate("\n", timeout=60)


def answer(url: str, query: str) -> object:
    with psycopg.connect(url) as conn:
        row = conn.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def test_a_new_folder_becomes_a_private_server_that_answers(tmp_path: Path) -> None:
    folder = tmp_path / "a folder with spaces" / "data"
    with EmbeddedPostgres(folder, settings=FAST) as url:
        assert answer(url, "show wal_level") == "logical"
        assert answer(url, "show server_encoding") == "UTF8"
        assert answer(url, "show listen_addresses") == "127.0.0.1"
        assert answer(url, "select lower('ÄÖÜ')") == "äöü" or find_binaries().major < 17
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600
    assert [path.name for path in folder.parent.iterdir()] == ["data"]


def test_the_service_is_no_superuser_and_nobody_can_be_one(cluster: Path) -> None:
    with EmbeddedPostgres(cluster) as url:
        mine = "from pg_roles where rolname = current_user"
        assert answer(url, f"select rolsuper {mine}") is False
        assert answer(url, f"select rolcreaterole {mine}") is True
        as_superuser = url.replace("//standpipe:", "//postgres:")
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            psycopg.connect(as_superuser)
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            psycopg.connect(url.replace("@", "x@"))


def test_a_clean_stop_leaves_no_process_and_the_url_stays_valid(cluster: Path) -> None:
    postgres = EmbeddedPostgres(cluster)
    first = postgres.start()
    pid = postgres.postmaster_pid
    assert pid is not None
    postgres.stop()
    assert not is_alive(pid)
    assert processes_in(cluster / "cluster") == []
    with EmbeddedPostgres(cluster) as second:
        assert second == first


def test_stopping_twice_is_harmless(cluster: Path) -> None:
    postgres = EmbeddedPostgres(cluster)
    postgres.start()
    postgres.stop()
    postgres.stop()


def test_committed_data_survives_kill_9_of_the_server(cluster: Path) -> None:
    postgres = EmbeddedPostgres(cluster)
    url = postgres.start()
    with psycopg.connect(url) as conn:
        conn.execute("create table if not exists survivor (n int)")
        conn.execute("insert into survivor values (42)")
    pid = postgres.postmaster_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    again = EmbeddedPostgres(cluster)
    url = again.start()
    try:
        assert again.postmaster_pid != pid
        assert answer(url, "select n from survivor") == 42
    finally:
        postgres.stop()
        again.stop()


def test_two_processes_share_one_server_and_the_last_one_stops_it(cluster: Path) -> None:
    with another_process(cluster) as other:
        assert other.stdout is not None
        theirs = other.stdout.readline().strip()
        postgres = EmbeddedPostgres(cluster)
        ours = postgres.start()
        assert ours == theirs
        other.communicate("\n", timeout=60)
        assert answer(ours, "select 1") == 1
        pid = postgres.postmaster_pid
        assert pid is not None
        postgres.stop()
        assert not is_alive(pid)


def test_a_server_whose_starter_was_killed_is_adopted(cluster: Path) -> None:
    with another_process(cluster) as other:
        assert other.stdout is not None
        theirs = other.stdout.readline().strip()
        other.kill()
        other.wait()
    postgres = EmbeddedPostgres(cluster)
    assert postgres.postmaster_pid is not None, "the server died with its starter"
    before = postgres.postmaster_pid
    assert postgres.start() == theirs
    assert postgres.postmaster_pid == before
    postgres.stop()
    assert not is_alive(before)


def test_a_pid_file_that_names_a_stranger_is_overcome(cluster: Path) -> None:
    """As after a crash in a container, whose next life hands the number to somebody else."""
    pid_file = cluster / "cluster" / "postmaster.pid"
    pid_file.write_text(f"{os.getppid()}\n{cluster / 'cluster'}\n0\n1\n\n127.0.0.1\n\nready\n")
    with EmbeddedPostgres(cluster) as url:
        assert answer(url, "select 1") == 1


def test_a_port_that_is_taken_in_the_last_moment_is_no_obstacle(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = EmbeddedPostgres._choose_port
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        taken = iter([stranger.getsockname()[1]])
        monkeypatch.setattr(
            EmbeddedPostgres, "_choose_port", lambda self: next(taken, None) or choose(self)
        )
        with EmbeddedPostgres(cluster) as url:
            assert answer(url, "select 1") == 1
    assert next(taken, None) is None


def test_a_start_that_died_while_making_the_cluster_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "cluster.partial" / "base").mkdir(parents=True)
    with EmbeddedPostgres(folder, settings=FAST) as url:
        assert answer(url, "select 1") == 1


def test_a_server_that_cannot_recover_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with EmbeddedPostgres(folder, settings=FAST):
        pass
    for segment in (folder / "cluster" / "pg_wal").glob("0*"):
        segment.unlink()
    with pytest.raises(DatabaseUnavailable, match=r"PANIC: .*checkpoint record"):
        EmbeddedPostgres(folder, settings=FAST).start()


def test_data_of_another_major_version_is_one_sentence(cluster: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "cluster").mkdir(parents=True)
    (folder / "cluster" / "PG_VERSION").write_text("99\n")
    with pytest.raises(DatabaseUnavailable, match="made by PostgreSQL 99"):
        EmbeddedPostgres(folder).start()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    tmp_path.chmod(0o755)
    with pytest.raises(DatabaseUnavailable, match="holds other files"):
        EmbeddedPostgres(tmp_path).start()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.fixture
def nobody() -> pwd.struct_passwd:
    """Return an unprivileged user; only root can become one."""
    if os.geteuid() != 0:
        pytest.skip("this run is unprivileged itself: every other test here is the proof")
    return pwd.getpwnam("nobody")


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Return a folder that every user can reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="standpipe-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_root_without_namespaces_hands_the_server_to_an_unprivileged_user(
    nobody: pwd.struct_passwd, public_folder: Path
) -> None:
    """An existing folder keeps its owner, which is also how the fallback of a first start ends."""
    folder = public_folder / "data"
    folder.mkdir(mode=0o700)
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    postgres = EmbeddedPostgres(folder, settings=FAST)
    with postgres as url:
        assert answer(url, "select 1") == 1
        pid = postgres.postmaster_pid
        assert pid is not None
        assert Path(f"/proc/{pid}").stat().st_uid == nobody.pw_uid
    assert processes_in(folder / "cluster") == []


def test_where_namespaces_are_forbidden_a_new_folder_gets_an_unprivileged_owner(
    nobody: pwd.struct_passwd, public_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.embedded.account.namespaces_work", lambda: False)
    folder = public_folder / "data"
    with EmbeddedPostgres(folder, settings=FAST) as url:
        assert answer(url, "select 1") == 1
    assert folder.stat().st_uid != 0
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_programs_the_user_cannot_read_are_linked_beside_the_data(
    nobody: pwd.struct_passwd, public_folder: Path
) -> None:
    found = find_binaries()
    hidden = public_folder / "hidden"
    data = public_folder / "data"
    for folder in (hidden, data):
        folder.mkdir(mode=0o700)
    os.chown(data, nobody.pw_uid, nobody.pw_gid)
    installation = found.folder.parent
    copy = hidden / installation.parent.name / installation.name
    shutil.copytree(installation, copy, symlinks=True)
    libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, hidden / libraries.name)
    account = Account(f"{nobody.pw_uid}:{nobody.pw_gid}", nobody.pw_uid, nobody.pw_gid)
    binaries = type(found)(copy / "bin", found.major)
    linked = readable_binaries(binaries, account, data)
    assert linked.folder.is_relative_to(data)
    assert account.run([str(linked.program("initdb")), "--version"]).returncode == 0


def test_a_normal_user_runs_it_as_himself(nobody: pwd.struct_passwd, public_folder: Path) -> None:
    os.chown(public_folder, nobody.pw_uid, nobody.pw_gid)
    account = Account(f"{nobody.pw_uid}:{nobody.pw_gid}", nobody.pw_uid, nobody.pw_gid)
    paths = [str(CHECKOUT), sysconfig.get_path("purelib")]
    preamble = f"import sys; sys.path[:0] = {paths!r}\n"
    python = readable_python(account, preamble)
    folder = public_folder / "data"
    done = account.run([python, "-c", preamble + USER, str(folder)], text="\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("postgresql://standpipe:")
    assert folder.stat().st_uid == nobody.pw_uid
    assert processes_in(folder / "cluster") == []


def readable_python(account: Account, preamble: str) -> str:
    """Return an interpreter the account can use: ours may lie in a folder of root's."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if Path(python).exists():
            done = account.run([python, "-c", preamble + "import psycopg, sync.embedded"])
            if done.returncode == 0:
                return python
    pytest.skip(f"no {version} of this system can be used by an unprivileged user")


def test_the_login_may_make_pgvector_and_nothing_else(tmp_path: Path) -> None:
    """Nobody can log in as a superuser; from version 18 on it is trusted without one."""
    if find_binaries().major < 18:
        pytest.skip("PostgreSQL 15 to 17 look for extensions in one folder only")
    with EmbeddedPostgres(tmp_path / "it's data") as url, psycopg.connect(url) as conn:
        conn.execute("create extension vector")
        assert conn.execute("select '[1,2]'::vector <=> '[2,1]'").fetchone() is not None
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("create extension file_fdw")
