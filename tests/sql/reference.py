"""Write the manual's page on the schema from its COMMENTs; `make schema` calls this.

What is described is read from the catalogs, so the page cannot promise what is not there; who may
call a function is read from its grants. A test sees when the page is stale.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import DictRow

ROOT = Path(__file__).parents[2]
REFERENCE_FILE = ROOT / "docs" / "reference" / "sql.md"

Session = psycopg.Connection[DictRow]
Row = dict[str, Any]

_INTRODUCTION = """\
# The schema `sync`

Written by `make schema` from the COMMENTs in `migrations/` and `sql/`, never by hand. The
arguments show their defaults; `Raises` names SQLSTATEs of [the error reference](errors.md).
"""

_SECTIONS = {
    "sync_reader": (
        "Functions for apps",
        "For members of `sync_reader`. See [read changes](../how-to/read-changes.md).",
    ),
    "sync_owner": (
        "Functions for operators",
        """\
For members of `sync_owner` only; the service's login is one. See
[track and resync](../how-to/track-and-resync.md).""",
    ),
    "sync_ingester": (
        "Functions of the service",
        """\
For members of `sync_ingester`. Who calls them and what they lock stands in the header of each
file; [the architecture](../explanation/architecture.md) shows them at work.""",
    ),
}

_FUNCTIONS = """
    select n.nspname as schema, p.proname as name,
           pg_get_function_arguments(p.oid) as arguments, pg_get_function_result(p.oid) as result,
           obj_description(p.oid, 'pg_proc') as comment,
           case when has_function_privilege('sync_reader', p.oid, 'execute') then 'sync_reader'
                when has_function_privilege('sync_ingester', p.oid, 'execute') then 'sync_ingester'
                else 'sync_owner' end as role
      from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     where n.nspname in ('sync', 'sync_priv')
     order by n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)
"""
_RELATIONS = """
    select c.relname as name, c.relkind in ('v', 'm') as is_view,
           obj_description(c.oid, 'pg_class') as comment,
           (select json_agg(json_build_object(
                     'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
                     'comment', col_description(c.oid, a.attnum)) order by a.attnum)
              from pg_attribute a
             where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'sync' and c.relkind in ('r', 'p', 'v') and not c.relispartition
     order by c.relname
"""


def render_reference(session: Session) -> str:
    """Return the whole page."""
    functions = session.execute(_FUNCTIONS).fetchall()
    relations = session.execute(_RELATIONS).fetchall()
    public = [row for row in functions if row["schema"] == "sync"]
    lines = [_INTRODUCTION]
    lines += ["## Views", "", "What members of `sync_reader` may select from.", ""]
    for row in relations:
        if row["is_view"]:
            lines += _relation(row)
    for role, (title, introduction) in _SECTIONS.items():
        lines += [f"## {title}", "", introduction, ""]
        for row in public:
            if row["role"] == role:
                lines += _function(row)
    lines += ["## Tables", "", "For `sync_owner`, and in part for `sync_replicator`.", ""]
    for row in relations:
        if not row["is_view"]:
            lines += _relation(row)
    lines += ["## Inside", "", "Functions of the schema `sync_priv`, for contributors.", ""]
    lines += ["| function | what it does |", "|---|---|"]
    lines += [
        f"| {_link(row['name'], row['schema'])} | {_cell(row['comment'])} |"
        for row in functions
        if row["schema"] == "sync_priv"
    ]
    return "\n".join(lines) + "\n"


def _function(row: Row) -> Iterator[str]:
    yield f"### sync.{row['name']}"
    yield ""
    yield "```sql"
    yield f"sync.{row['name']}({row['arguments']})"
    yield f"  returns {row['result']}"
    yield "```"
    yield ""
    yield f"{_flow(row['comment'])} ({_link('source', 'sync', name=row['name'])})"
    yield ""


def _relation(row: Row) -> Iterator[str]:
    yield f"### sync.{row['name']}"
    yield ""
    yield _flow(row["comment"])
    yield ""
    yield "| column | type | what it is |"
    yield "|---|---|---|"
    for column in row["columns"]:
        yield f"| `{column['name']}` | {column['type']} | {_cell(column['comment'])} |"
    yield ""


def _link(text: str, schema: str, *, name: str = "") -> str:
    """Link to the file that defines a function; each has one of its own name."""
    files = sorted((ROOT / "sql").glob(f"*/{name or text}.sql"))
    label = text if name else f"`{schema}.{text}`"
    return f"[{label}](../../{files[0].relative_to(ROOT).as_posix()})" if files else label


def _flow(comment: str | None) -> str:
    """Join the lines of a comment; Markdown wraps by itself."""
    return " ".join((comment or "").split())


def _cell(comment: str | None) -> str:
    return _flow(comment).replace("|", "\\|")
