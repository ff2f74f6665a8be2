"""Ask as PostgREST does: a request's URL becomes the statement that PostgREST makes of it.

Written after its documentation and its query builder, for the part of its language that our page
uses. It shows that columns, functions, rights and indexes are there; it is not PostgREST.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row

SCHEMA = "api"
OPERATORS = {"eq": "=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
SETTINGS = ("select", "order", "limit")
MAX_ROWS = 1000

Session = psycopg.Connection[DictRow]


@dataclass(frozen=True, slots=True)
class Source:
    """What is read, and the name that its columns have in front."""

    relation: sql.Composable
    name: sql.Composable
    view: str


@dataclass(slots=True)
class Embed:
    """One embedded relationship: `alias:function(columns)`."""

    function: str
    alias: str
    columns: list[str] = field(default_factory=list)
    order: str | None = None
    limit: int = MAX_ROWS


@dataclass(frozen=True, slots=True)
class Relationships:
    """The functions of the schema that take a row of a view: (view, function) → is it one row."""

    to_one: dict[tuple[str, str], bool]

    @classmethod
    def of(cls, conn: Session) -> "Relationships":
        """Find them as PostgREST does when it fills its schema cache."""
        rows = conn.execute(
            """
            select p.proname as function, a.relname as view, p.prorows = 1 as is_one
              from pg_proc p
              join pg_class a on a.reltype = p.proargtypes[0]
             where p.pronamespace = %s::regnamespace and p.pronargs = 1 and p.proretset
            """,
            [SCHEMA],
        ).fetchall()
        return cls({(row["view"], row["function"]): row["is_one"] for row in rows})


@contextmanager
def request(url: str, *, role: str, method: str = "GET", path: str = "/") -> Iterator[Session]:
    """Open a transaction as PostgREST does: log in as authenticator, become the role."""
    login = make_conninfo(url, user="authenticator", password="choose one")
    with psycopg.connect(login, row_factory=dict_row) as conn:
        conn.read_only = method == "GET"
        settings = {
            "search_path": '"api", "public"',
            "role": role,
            "request.jwt.claims": json.dumps({"role": role}),
            "request.method": method,
            "request.path": path,
            "request.headers": '{"accept": "*/*"}',
            "request.cookies": "{}",
        }
        for name, value in settings.items():
            conn.execute("select set_config(%s, %s, true)", [name, value])
        yield conn
        conn.rollback()


def statement(target: str, relationships: Relationships) -> sql.Composed:
    """Return what PostgREST runs for GET `target`, like `/posts?did=eq.x&limit=5`."""
    parts = urlsplit(target)
    name = parts.path.rpartition("/")[2]
    arguments = parse_qsl(parts.query, strict_parsing=True) if parts.query else []
    if parts.path.startswith("/rpc/"):
        source = _call(name, arguments)
        arguments = []
    else:
        qualified = sql.Identifier(SCHEMA, name)
        source = Source(qualified, qualified, name)
    return sql.SQL(
        "with pgrst_source as ({source}) "
        "select null::bigint as total_result_set, pg_catalog.count(_postgrest_t) as page_total, "
        "coalesce(json_agg(_postgrest_t), '[]') as body, "
        "nullif(current_setting('response.headers', true), '') as response_headers, "
        "nullif(current_setting('response.status', true), '') as response_status "
        "from (select * from pgrst_source) _postgrest_t"
    ).format(source=_select(source, arguments, relationships))


def _call(function: str, arguments: list[tuple[str, str]]) -> Source:
    given = sql.SQL(", ").join(
        sql.SQL("{} := {}").format(sql.Identifier(key), sql.Literal(value))
        for key, value in arguments
    )
    call = sql.SQL("{}({}) pgrst_call").format(sql.Identifier(SCHEMA, function), given)
    return Source(call, sql.Identifier("pgrst_call"), "")


def _select(
    source: Source, arguments: list[tuple[str, str]], relationships: Relationships
) -> sql.Composed:
    settings = {key: value for key, value in arguments if key.split(".")[-1] in SETTINGS}
    conditions = [_condition(source, key, value) for key, value in arguments if key not in settings]
    columns, embeds = _selected(settings.get("select", "*"))
    order = settings.get("order")
    limit = min(int(settings.get("limit", MAX_ROWS)), MAX_ROWS)
    items = [_column(source, column) for column in columns]
    joins = []
    for embed in embeds:
        embed.order = settings.get(f"{embed.alias}.order")
        embed.limit = int(settings.get(f"{embed.alias}.limit", MAX_ROWS))
        item, join = _embedded(source, embed, relationships)
        items.append(item)
        joins.append(join)
    return sql.SQL("select {} from {} {} {} {} limit {} offset 0").format(
        sql.SQL(", ").join(items),
        source.relation,
        sql.SQL(" ").join(joins),
        sql.SQL("where ") + sql.SQL(" and ").join(conditions) if conditions else sql.SQL(""),
        _ordered(source, order) if order else sql.SQL(""),
        sql.Literal(limit),
    )


def _selected(text: str) -> tuple[list[str], list[Embed]]:
    columns: list[str] = []
    embeds: list[Embed] = []
    for alias, name, inner in re.findall(r"(?:(\w+):)?(\*|\w+)(?:\(([^)]*)\))?", text):
        if inner:
            embeds.append(Embed(name, alias or name, inner.split(",")))
        else:
            columns.append(name)
    return columns, embeds


def _embedded(
    source: Source, embed: Embed, relationships: Relationships
) -> tuple[sql.Composed, sql.Composed]:
    is_one = relationships.to_one[source.view, embed.function]
    call = sql.SQL("{}({}::{})").format(
        sql.Identifier(SCHEMA, embed.function),
        sql.Identifier(source.view),
        sql.Identifier(SCHEMA, source.view),
    )
    inner = Source(call, sql.Identifier(embed.function), "")
    query = sql.SQL("select {} from {} {} {}").format(
        sql.SQL(", ").join(_column(inner, column) for column in embed.columns),
        call,
        _ordered(inner, embed.order) if embed.order else sql.SQL(""),
        sql.SQL("") if is_one else sql.SQL("limit {}").format(embed.limit),
    )
    names = {
        "a": sql.Identifier(f"{source.view}_{embed.function}_1"),
        "as": sql.Identifier(embed.alias),
        "query": query,
    }
    if is_one:
        return (
            sql.SQL("row_to_json({a}.*) as {as}").format(**names),
            sql.SQL("left join lateral ({query}) as {a} on true").format(**names),
        )
    return (
        sql.SQL("coalesce({a}.{a}, '[]') as {as}").format(**names),
        sql.SQL(
            "left join lateral (select json_agg({a}) as {a} from ({query}) as {a}) as {a} on true"
        ).format(**names),
    )


def _column(source: Source, column: str) -> sql.Composed:
    name = sql.SQL("*") if column == "*" else sql.Identifier(column)
    return sql.SQL("{}.{}").format(source.name, name)


def _condition(source: Source, key: str, value: str) -> sql.Composed:
    operator, _, operand = value.partition(".")
    return sql.SQL("{} {} {}").format(
        _column(source, key), sql.SQL(OPERATORS[operator]), sql.Literal(operand)
    )


def _ordered(source: Source, order: str) -> sql.Composed:
    terms = []
    for term in order.split(","):
        column, _, direction = term.partition(".")
        assert direction in ("", "asc", "desc"), term
        terms.append(sql.SQL("{} {}").format(_column(source, column), sql.SQL(direction or "asc")))
    return sql.SQL("order by ") + sql.SQL(", ").join(terms)
