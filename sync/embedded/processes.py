"""Which processes belong to a cluster, and whether its pid file tells the truth.

PostgreSQL works in its data folder, so on Linux a process's working directory says whether it is
one of ours. A pid file alone does not: after a crash or in a new container its number may belong
to anybody. Where there is no /proc the number has to do.
"""

import os
from pathlib import Path

_PROC = Path("/proc")


def postmaster(cluster: Path) -> int | None:
    """Return the process id of the server that runs in a cluster."""
    pid = _written_pid(cluster)
    if pid is None or not is_alive(pid):
        return None
    if _has_proc() and not _works_in(pid, cluster):
        return None
    return pid


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if not _has_proc():
        return True
    try:
        # "pid (name) state …"; the name may hold anything, also a bracket.
        state = (_PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] not in {"Z", "X"}


def processes_in(cluster: Path) -> list[int]:
    """Return every process that works in a cluster, orphans of a killed server included."""
    if not _has_proc():
        return []
    numbers = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    return [pid for pid in numbers if _works_in(pid, cluster) and is_alive(pid)]


def remove_stale_pid_file(cluster: Path) -> None:
    """Remove a pid file whose number belongs to a stranger, which PostgreSQL takes for a server.

    Only when nobody works in the cluster: the file also guards against two servers on one
    folder. A number that nobody has is left to PostgreSQL, which handles it.
    """
    pid = _written_pid(cluster)
    if pid is None or not _has_proc() or processes_in(cluster):
        return
    if (_PROC / str(pid)).exists():
        (cluster / "postmaster.pid").unlink(missing_ok=True)


def _written_pid(cluster: Path) -> int | None:
    try:
        first = (cluster / "postmaster.pid").read_text("utf-8").partition("\n")[0]
        return int(first)
    except (FileNotFoundError, ValueError):
        return None


def _works_in(pid: int, cluster: Path) -> bool:
    try:
        return (_PROC / str(pid) / "cwd").readlink() == cluster
    except OSError:
        return False


def _has_proc() -> bool:
    return (_PROC / "self" / "cwd").exists()
