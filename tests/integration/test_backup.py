"""A dump restored as docs/how-to/backup.md says is the same database."""

import subprocess
from pathlib import Path

from psycopg import sql

from sync.database import connect_sync
from sync.schema import upgrade
from tests.golden import dump_schema
from tests.postgres import Server

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_restored_dump_continues_after_an_upgrade(
    postgres: Server, clone: str, tmp_path: Path
) -> None:
    with connect_sync(clone, name="test") as conn:
        conn.execute("select sync.track_repos(%s)", [[DID]])
        schema = dump_schema(conn)
    dump = tmp_path / "app.dump"
    programs = postgres.binaries.folder
    run(programs / "pg_dump", "--format=custom", f"--file={dump}", clone)
    with postgres.database() as name:
        restored = postgres.service_url(name)
        upgrade(restored)
        options = ("--clean", "--if-exists", "--exit-on-error")
        run(programs / "pg_restore", *options, f"--dbname={restored}", dump)
        upgrade(restored)
        with connect_sync(restored, name="test") as conn:
            tracked = conn.execute(sql.SQL("select did from sync.repos")).fetchall()
            assert tracked == [{"did": DID}]
            assert dump_schema(conn) == schema
