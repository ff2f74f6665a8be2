"""A search in one connection: records with texts, and embeddings written as the service does."""

import re
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from tests.embedders import DIMENSIONS, embed
from tests.sql.driver import POST, cid, did
from tests.sql.readers import Session, World

NAME = "posts"
URL = "http://127.0.0.1:1/v1/embeddings"
TEXT = "value ->> 'text'"
# What a text is cut and trimmed to, in Python.
LONGEST = 8000


def text_of(value: Any) -> str | None:
    """Return the text that a record is found by, or None."""
    text = value.get("text") if isinstance(value, dict) else None
    if text is None:
        return None
    return re.sub(r"^[ \t\r\n]+|[ \t\r\n]+$", "", str(text))[:LONGEST] or None


@dataclass
class Searching:
    """The search `posts` over the posts of a world."""

    world: World

    @property
    def db(self) -> Session:
        return self.world.db

    def enable(self, **chosen: Any) -> None:
        """Make the search, by the names of sync.enable_search()."""
        enable(self.db, **chosen)

    def write(self, repo: int, rkey: str, value: str) -> None:
        """Insert or overwrite a record by hand, with its JSON."""
        self.world.version += 1
        self.db.execute(
            """
            insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
            select r.repo_id, c.collection_id, %s, %s, '3kaaaaaaaaaaa', %s::jsonb
              from sync.repos r, sync.collections c where r.did = %s and c.nsid = %s
                on conflict (repo_id, collection_id, rkey)
                do update set cid = excluded.cid, value = excluded.value
            """,
            [rkey, cid(self.world.version), value, did(repo), POST],
        )

    def settle(self) -> None:
        """Let the projection take every change there is."""
        name = f"search {NAME}"
        while True:
            self.db.execute("select sync.run_projection(%s)", [name])
            row = self.db.execute(
                "select state, is_at_rest, error from sync.projection_status where name = %s",
                [name],
            ).fetchone()
            assert row is not None
            assert row["state"] == "running", row
            if row["is_at_rest"]:
                return

    def waiting(self, after: tuple[str, str] = ("", ""), limit: int = 100) -> list[Any]:
        """Return what waits, as the service reads it."""
        rows = self.db.execute(
            "select * from sync.waiting_texts(%s, %s, %s, %s)", [NAME, *after, limit]
        )
        return [tuple(row.values()) for row in rows.fetchall()]

    def store(self, texts: list[Any]) -> int:
        """Write the embeddings of some texts, as the service does."""
        numbers = [number for _, _, text in texts for number in embed(text)]
        dids, rkeys, words = ([text[place] for text in texts] for place in range(3))
        row = self.db.execute(
            "select sync.store_embeddings(%s, %s, %s, %s, %s::real[]) as n",
            [NAME, dids, rkeys, words, numbers],
        ).fetchone()
        return int((row or {})["n"])

    def embed_all(self) -> None:
        """Embed everything that waits."""
        self.settle()
        while texts := self.waiting():
            assert self.store(texts) == len(texts)

    def find(self, words: str, limit: int = 10) -> list[str]:
        """Return the rkeys of the hits."""
        rows = self.db.execute(
            "select * from sync.search(%s, %s::real[], %s)", [NAME, embed(words), limit]
        ).fetchall()
        assert [row["distance"] for row in rows] == sorted(row["distance"] for row in rows)
        return [row["rkey"] for row in rows]

    def kept(self) -> dict[tuple[str, str], str]:
        """Return the texts that the table has."""
        rows = self.db.execute("select did, rkey, text from sync_search.posts").fetchall()
        return {(row["did"], row["rkey"]): row["text"] for row in rows}

    def expected(self) -> dict[tuple[str, str], str]:
        """Work out from the visible records what it should have."""
        rows = self.db.execute(
            "select did, rkey, value from sync.records where collection = %s", [POST]
        ).fetchall()
        texts = {(row["did"], row["rkey"]): text_of(row["value"]) for row in rows}
        return {key: text for key, text in texts.items() if text is not None}

    def embedded(self) -> set[str]:
        """Return the rkeys whose text has an embedding."""
        rows = self.db.execute(
            "select rkey from sync_search.posts where embedding is not null"
        ).fetchall()
        return {row["rkey"] for row in rows}


def enable(db: Session, **chosen: Any) -> None:
    """Make a search, by the names of sync.enable_search()."""
    given = {
        "p_name": NAME,
        "p_nsid": POST,
        "p_text": TEXT,
        "p_embedder": URL,
        "p_dimensions": DIMENSIONS,
        **chosen,
    }
    named = ", ".join(
        f"{name} => %({name})s{'::real' if name == 'p_rate' else ''}" for name in given
    )
    db.execute(f"select sync.enable_search({named})".encode(), given)


def refusal(db: Session, statement: str, *args: Any) -> psycopg.Error:
    """Return the error of a statement that has to be refused."""
    with pytest.raises(psycopg.Error) as caught, db.transaction():
        db.execute(statement.encode(), args)
    return caught.value


def index_statements(db: Session) -> list[str]:
    """Return what makes the indexes that are asked for."""
    rows = db.execute(
        "select statement from sync.index_steps() where index_name like '%\\_\\_embedding'"
    ).fetchall()
    return [row["statement"] for row in rows]
