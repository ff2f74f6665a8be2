"""Records that tests write to a real PDS."""

from typing import Any

NOTE = "com.example.note"
POST = "app.bsky.feed.post"
HARD_RKEY = "self:colon~tidle_.-"


def note(text: str, *, collection: str = NOTE) -> dict[str, Any]:
    """Return a small record without a published lexicon."""
    return {"$type": collection, "text": text}


def post(text: str) -> dict[str, Any]:
    """Return a small record that the PDS validates."""
    return {"$type": POST, "text": text, "createdAt": "2026-01-02T03:04:05.678Z"}


def hard_content(link: str) -> dict[str, Any]:
    """Return a record of everything legal that hurts a store which trusts its input."""
    return {
        "$type": NOTE,
        "text": "before\0after",
        "key\0with nul": 1,
        **hard_content_without_nul(link),
    }


def hard_content_without_nul(link: str) -> dict[str, Any]:
    """Return the same as far as jsonb can hold it."""
    deep: list[Any] = []
    for _ in range(60):
        deep = [deep]
    return {
        "$type": NOTE,
        "": "the empty key",
        "$odd": {"$": [1], "$$link": {"$LINK": "x"}},
        "deep": deep,
        "largest": 2**53 - 1,
        "smallest": -(2**53 - 1),
        "unicode": "größe ✓ 🦜 \u2028 \ufeff",
        "bytes": {"$bytes": "AAECAw"},
        "link": {"$link": link},
        "empties": [None, False, 0, "", [], {}],
        "long": "x" * 50_000,
    }
