"""Let the login of the service make the one extension that Standpipe can use: pgvector.

An extension needs a superuser unless it is marked as trusted, and nobody can log in as the
superuser of an embedded server. From version 18 on PostgreSQL looks for extensions in further
folders; so the data folder has one with pgvector's control file, marked. Its scripts and its
library stay where they were installed.
"""

from pathlib import Path

from sync.embedded.account import Account
from sync.embedded.binaries import Binaries
from sync.embedded.cluster import DataFolder

_FIRST_WITH_PATH = 18
_EXTENSION = "vector"


def extension_settings(folder: DataFolder, binaries: Binaries, account: Account) -> dict[str, str]:
    """Return what has the server find pgvector as trusted; nothing where that cannot be."""
    installed = _control_file(binaries)
    # A colon would end the path in the setting.
    if installed is None or binaries.major < _FIRST_WITH_PATH or ":" in str(folder.root):
        return {}
    place = folder.extensions / "extension"
    control = installed.read_text(encoding="utf-8")
    # Written at every start: the programs may lie elsewhere after an upgrade of theirs.
    scripts = str(installed.parent).replace("'", "''")
    control += f"\n# Added by Standpipe.\ntrusted = true\ndirectory = '{scripts}'\n"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    (place / installed.name).write_text(control, encoding="utf-8")
    for path in (folder.extensions, place, place / installed.name):
        account.own(path)
    return {"extension_control_path": f"{folder.extensions}:$system"}


def _control_file(binaries: Binaries) -> Path | None:
    """Find the control file of an installation, whose folders differ by who packaged it."""
    root, major = binaries.folder.parent, binaries.major
    shares = (root / "share", root / "share/postgresql", Path(f"/usr/share/postgresql/{major}"))
    files = (share / "extension" / f"{_EXTENSION}.control" for share in shares)
    return next((file for file in files if file.is_file()), None)
