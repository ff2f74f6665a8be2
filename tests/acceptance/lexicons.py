"""A small lexicon, as it stands in a repo."""

from typing import Any

from sync.lexicons import LEXICON_SCHEMA

NOTE = "com.example.note"
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
WHEN = {"type": "string", "format": "datetime"}


def lexicon(nsid: str = NOTE, **properties: Any) -> dict[str, Any]:
    record = {"type": "object", "properties": properties or {"text": TEXT, "createdAt": WHEN}}
    return {
        "$type": LEXICON_SCHEMA,
        "lexicon": 1,
        "id": nsid,
        "defs": {"main": {"type": "record", "key": "tid", "record": record}},
    }
