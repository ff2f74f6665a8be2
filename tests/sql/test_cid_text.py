"""cid_text and cid_bytes: the two forms of a CID."""

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import DictRow

from sync.atproto.cid import DAG_CBOR_PREFIX, RAW_PREFIX, format_cid, parse_cid

Session = psycopg.Connection[DictRow]

KNOWN = [
    "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a",
    "bafyreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
]


@pytest.mark.parametrize("text", KNOWN)
def test_known_cids_have_their_text(db: Session, text: str) -> None:
    row = db.execute(
        "select sync_priv.cid_text(%s) as text, sync_priv.cid_bytes(%s) as bytes",
        [parse_cid(text), text],
    ).fetchone()
    assert row == {"text": text, "bytes": parse_cid(text)}


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prefix=st.sampled_from([DAG_CBOR_PREFIX, RAW_PREFIX]),
    digest=st.binary(min_size=32, max_size=32),
)
def test_any_cid_reads_as_python_writes_it(db: Session, prefix: bytes, digest: bytes) -> None:
    cid = prefix + digest
    row = db.execute(
        "select sync_priv.cid_text(%s) as text, sync_priv.cid_bytes(%s) as bytes",
        [cid, format_cid(cid)],
    ).fetchone()
    assert row == {"text": format_cid(cid), "bytes": cid}


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "b",
        KNOWN[0] + "a",
        KNOWN[0][:-1],
        KNOWN[0].upper(),
        "z" + KNOWN[0][1:],
        KNOWN[0][:-1] + "b",  # the last digit has bits that no byte holds
        KNOWN[0] + "\n",
        KNOWN[0][:20] + "1" + KNOWN[0][21:],
    ],
)
def test_what_is_no_cid_is_null(db: Session, text: str | None) -> None:
    assert db.execute("select sync_priv.cid_bytes(%s) as b", [text]).fetchone() == {"b": None}


def test_no_cid_has_no_text(db: Session) -> None:
    assert db.execute("select sync_priv.cid_text(null) as t").fetchone() == {"t": None}
