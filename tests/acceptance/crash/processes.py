"""The processes of the service, as /proc shows them."""

from pathlib import Path

_PROC = Path("/proc")


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started, oldest first."""
    return sorted(each for each in _pids() if _parent_of(each) == pid)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be buried does not."""
    state, _ = _stat(pid)
    return state not in {"", "Z", "X"}


def owner_of(port: int, pids: list[int]) -> int | None:
    """Return the process whose socket has a local port."""
    inode = _inode_of(port)
    return next((pid for pid in pids if inode in _sockets_of(pid)), None)


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]


def _stat(pid: int) -> tuple[str, int]:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, int(parent)


def _parent_of(pid: int) -> int:
    return _stat(pid)[1]


def _inode_of(port: int) -> str | None:
    for line in (_PROC / "net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{port:04X}"):
            return fields[9]
    return None


def _sockets_of(pid: int) -> set[str]:
    found = set()
    try:
        for entry in (_PROC / str(pid) / "fd").iterdir():
            target = str(entry.readlink())
            if target.startswith("socket:["):
                found.add(target[len("socket:[") : -1])
    except (FileNotFoundError, PermissionError):
        pass
    return found
