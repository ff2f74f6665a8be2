"""Fuzz one target with Atheris in a process of its own, for libFuzzer ends the process itself.

python -m tests.fuzz.child TARGET [options of libFuzzer] [folders]
"""

import sys

import atheris

with atheris.instrument_imports(include=["sync.atproto"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until a promise is broken or the time is over."""
    check = TARGETS[sys.argv.pop(1)]

    def give(data: bytes) -> None:
        check(data)

    atheris.Setup(sys.argv, give)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
