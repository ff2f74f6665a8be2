"""A database that does not answer, or says no, is one sentence without a password."""

import pytest

from sync.database import connect, connect_sync, place, refusals
from sync.errors import REFUSALS, BadArgument, DatabaseRefusal, DatabaseUnavailable

CLOSED = "postgresql://someone:s3cret@127.0.0.1:1/nowhere"


class Refused(Exception):
    """Stands for nothing of ours: what is no database error passes through."""


def test_a_place_has_no_password() -> None:
    assert place(CLOSED) == "127.0.0.1:1/nowhere"
    assert place("postgresql://someone@/app?host=/run/pg&port=6000") == "/run/pg:6000/app"
    assert "s3cret" not in place("postgresql://someone:s3cret@[broken/app")


def test_a_closed_port_is_a_sentence_for_psycopg() -> None:
    with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:1/nowhere does not") as caught:
        connect_sync(CLOSED, name="test")
    assert "s3cret" not in str(caught.value)


async def test_a_closed_port_is_a_sentence_for_asyncpg() -> None:
    with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:1/nowhere does not") as caught:
        await connect(CLOSED, name="test")
    assert "s3cret" not in str(caught.value)


def test_what_is_no_refusal_passes_through() -> None:
    with pytest.raises(Refused), refusals():
        raise Refused


def test_every_refusal_with_a_class_has_an_exit_code_of_the_table() -> None:
    assert {kind.exit_code for kind in REFUSALS.values()} == {2, 7}
    assert issubclass(BadArgument, DatabaseRefusal)
    assert BadArgument("SY002", "no did: 'x'").sqlstate == "SY002"
