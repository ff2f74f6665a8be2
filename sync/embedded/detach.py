"""Become the account that runs PostgreSQL, then run a program. Executed, never imported.

    python detach.py plain|namespace|UID:GID wait|detach PROGRAM ARGUMENT…

`namespace` is for root, whom PostgreSQL refuses: in a user namespace of its own the process has
another number while every file stays root's, so nothing on the system is touched. `detach` makes
the program a daemon that outlives its parent, and prints its process id.

Exit code 125: this account cannot be taken here.
"""

import ctypes
import os
import sys

CLONE_NEWUSER = 0x1000_0000
NUMBER_INSIDE = 1000
CANNOT = 125


def enter_namespace() -> None:
    """Map the present user to an ordinary number."""
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "no user namespace")
    for name, text in (
        ("setgroups", "deny"),  # the kernel wants this before a group is mapped
        ("uid_map", f"{NUMBER_INSIDE} {uid} 1"),
        ("gid_map", f"{NUMBER_INSIDE} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def become(account: str) -> None:
    """Take the account that was asked for."""
    if account == "plain":
        return
    if account == "namespace":
        enter_namespace()
        return
    uid, gid = (int(number) for number in account.split(":"))
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def main() -> None:
    """Run the program as the arguments say."""
    account, manner, *command = sys.argv[1:]
    try:
        become(account)
    except (OSError, AttributeError):  # forbidden, or a system without unshare
        sys.exit(CANNOT)
    os.umask(0o077)
    if manner == "detach":
        child = os.fork()
        if child:
            print(child, flush=True)
            os._exit(0)
        os.setsid()
        os.dup2(2, 1)
    os.execv(command[0], command)


main()
