"""The data folder: what lies in it, and how a cluster is made that never needs a superuser.

    standpipe-data/          0700, all that an embedded server ever writes
      cluster/               PostgreSQL's own files
      log/                   its log, one file a weekday
      extensions/            what of its extensions the login may make
      password               of the login `standpipe`, 0600
      port                   on 127.0.0.1, kept so that a pasted URL stays valid
      lock, users            who is starting or stopping the server, and who uses it

Role and database are made in single-user mode, before the server ever listens. The superuser
has no password, so nobody can log in as one. There are no sockets: 127.0.0.1 with a
password is reached the same way by every driver, whatever the length of the folder's path.
"""

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sync.embedded.account import Account
from sync.embedded.binaries import Binaries
from sync.errors import DatabaseUnavailable

LOGIN = "standpipe"
DATABASE = "standpipe"
# initdb's name for the superuser; the service never is this.
SUPERUSER = "postgres"
_FIRST_WITH_BUILTIN_LOCALE = 17

_SETTINGS = {
    "wal_level": "logical",
    # A subscriber that stays away would otherwise keep WAL until the disk is full, and that stops
    # everything. This is hours of a busy stream, days of a calm one; then it starts over.
    "max_slot_wal_keep_size": "16GB",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u %a ",
    "log_checkpoints": "off",
    "password_encryption": "scram-sha-256",
}

_LOGINS_ALLOWED = """\
# Written by Standpipe. Whoever knows a password may log in from this machine; the superuser
# has none.
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


@dataclass(frozen=True, slots=True)
class DataFolder:
    """The paths inside a data folder."""

    root: Path

    @property
    def cluster(self) -> Path:
        """PostgreSQL's own folder."""
        return self.root / "cluster"

    @property
    def log(self) -> Path:
        """The folder of the server's log."""
        return self.root / "log"

    @property
    def extensions(self) -> Path:
        """A folder in which the server looks for extensions first."""
        return self.root / "extensions"

    @property
    def startup_log(self) -> Path:
        """What the server says before its logging is up."""
        return self.log / "startup.log"

    @property
    def password_file(self) -> Path:
        """The password of the login, readable by its owner only."""
        return self.root / "password"

    @property
    def port_file(self) -> Path:
        """The port that was used last."""
        return self.root / "port"

    def prepare(self) -> None:
        """Make the folder, private; refuse one that holds something else."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            foreign = {path.name for path in self.root.iterdir()} - {"lost+found"}
        except OSError as error:
            raise DatabaseUnavailable(
                f"The data folder {self.root} cannot be used ({error.strerror}): set "
                "STANDPIPE_DATA_DIR to a folder of your own."
            ) from error
        if foreign and not foreign & {"cluster", "lock", "spool", "cluster.partial"}:
            raise DatabaseUnavailable(
                f"The data folder {self.root} holds other files: set STANDPIPE_DATA_DIR to a new "
                "or empty folder."
            )
        self.root.chmod(0o700)

    def major(self) -> int | None:
        """Return the version that made the cluster, None where there is none yet."""
        try:
            return int((self.cluster / "PG_VERSION").read_text(encoding="ascii"))
        except FileNotFoundError:
            return None

    def password(self) -> str:
        """Return the password, made on first use."""
        if not self.password_file.exists():
            write_private(self.password_file, secrets.token_urlsafe(24))
        return self.password_file.read_text(encoding="ascii").strip()


def make_cluster(
    folder: DataFolder, binaries: Binaries, account: Account, *, settings: Mapping[str, str]
) -> None:
    """Run initdb, write the settings, make login and database; the last step is a rename.

    So a process killed half-way leaves a folder that the next start throws away.
    """
    partial = folder.root / "cluster.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    account.own(partial)
    _run(account, [str(binaries.program("initdb")), *_initdb_options(binaries), str(partial)])
    with (partial / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write("\n# Standpipe's defaults: change them, they are written only once.\n")
        file.writelines(
            f"{name} = '{value}'\n" for name, value in {**_SETTINGS, **settings}.items()
        )
    (partial / "pg_hba.conf").write_text(_LOGINS_ALLOWED, encoding="utf-8")
    single_user(account, binaries, partial, _first_statements(folder.password()))
    partial.rename(folder.cluster)


def write_private(path: Path, text: str) -> None:
    """Replace a small file of ours in one step, readable by its owner only."""
    partial = path.with_name(f"{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
    partial.rename(path)


def _initdb_options(binaries: Binaries) -> list[str]:
    options = ["-U", SUPERUSER, "-E", "UTF8", "--locale=C", "--data-checksums", "-A", "reject"]
    if binaries.major >= _FIRST_WITH_BUILTIN_LOCALE:
        # Upper and lower case of every script, still sorted by bytes.
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return [*options, "-D"]


def _first_statements(password: str) -> list[str]:
    """Make the login of the service: may make roles and replicate, is no superuser.

    It may see and end other logins' sessions, for one that idles with the log's lock stops all.
    """
    return [
        f"create role {LOGIN} login createrole createdb replication password '{password}'",
        f"grant pg_signal_backend, pg_read_all_stats to {LOGIN}",
        f"create database {DATABASE} owner {LOGIN}",
    ]


def single_user(account: Account, binaries: Binaries, cluster: Path, statements: list[str]) -> None:
    """Run statements as superuser without a server: one a line, to the end of the input."""
    command = [str(binaries.program("postgres")), "--single", "-j", "-D", str(cluster)]
    # In -j mode a semicolon and an empty line end a statement; errors only show in the output.
    said = _run(
        account,
        [*command, "-c", "log_min_messages=error", "-c", "exit_on_error=on", SUPERUSER],
        text="".join(f"{statement};\n\n" for statement in statements),
    )
    if "ERROR:" in said or "FATAL:" in said:
        raise DatabaseUnavailable(f"The embedded database could not be prepared: {_reason(said)}")


def _run(account: Account, command: list[str], *, text: str = "") -> str:
    done = account.run(command, text=text)
    said = done.stderr + done.stdout
    if done.returncode != 0:
        program = Path(command[0]).name
        raise DatabaseUnavailable(f"{program} failed for the embedded database: {_reason(said)}")
    return said


def _reason(said: str) -> str:
    """Pick the line that names the cause, without any password in it."""
    lines = [line for line in said.splitlines() if line.strip() and "password" not in line]
    named = [line for line in lines if "error:" in line.lower() or "FATAL:" in line]
    return (named or lines or ["it gave no reason"])[0].strip()
