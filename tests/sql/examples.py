"""The examples in docs/examples/projections, and what their tables have to hold.

Beside each table stands the query that works it out from `sync.records` alone.
"""

from pathlib import Path

from psycopg import sql

from tests.sql.readers import Session

FOLDER = Path(__file__).parents[2] / "docs" / "examples" / "projections"
POSTS = "sync.records r where r.collection = 'app.bsky.feed.post'"
FOLLOWS = "sync.records r where r.collection = 'app.bsky.graph.follow'"
LIKES = "sync.records r where r.collection = 'app.bsky.feed.like'"
_TEXT = "coalesce(sync_migration.as_text(r.value -> 'text'), '')"
_SUBJECT = (
    "jsonb_typeof(r.value -> 'subject') = 'string' and r.value ->> 'subject' ~ '^did:[!-~]{1,200}$'"
)
_LIKED = (
    "jsonb_typeof(r.value #> '{subject,uri}') = 'string'"
    " and r.value #>> '{subject,uri}' ~ '^at://[!-~]{1,200}$'"
)

# Table or view → what it has to hold.
WANTED = {
    "posts": f"""
        select r.did, r.rkey, r.uri, {_TEXT},
               coalesce(sync_migration.as_texts(r.value -> 'langs'), '{{}}'),
               sync_migration.as_datetime(r.value -> 'createdAt'),
               to_tsvector('simple', {_TEXT}) from {POSTS}
    """,
    "follows": f"select r.did, r.rkey, r.value ->> 'subject' from {FOLLOWS} and {_SUBJECT}",
    "follower_counts": f"""
        select r.value ->> 'subject', count(*) from {FOLLOWS} and {_SUBJECT} group by 1
    """,
    "likes": f"select r.did, r.rkey, r.value #>> '{{subject,uri}}' from {LIKES} and {_LIKED}",
    "like_counts": f"""
        select r.value #>> '{{subject,uri}}', count(*) from {LIKES} and {_LIKED} group by 1
    """,
    "replies": f"""
        select r.did, r.rkey, r.uri, sync_migration.as_text(r.value #> '{{reply,parent,uri}}'),
               sync_migration.as_text(r.value #> '{{reply,root,uri}}'), {_TEXT} from {POSTS}
    """,
    "backlinks": """
        select r.did, r.collection, r.rkey,
               row_number() over (partition by r.did, r.collection, r.rkey
                                  order by l.path collate "C", l.target collate "C"),
               l.path, l.target
          from sync.records r cross join lateral app.links_of(r.value) l
    """,
    "labelled_posts": f"""
        select r.did, r.rkey, r.uri, {_TEXT},
               array(select l ->> 'val' from jsonb_array_elements(
                 case jsonb_typeof(r.value #> '{{labels,values}}') when 'array'
                 then r.value #> '{{labels,values}}' end) l
                where jsonb_typeof(l -> 'val') = 'string') from {POSTS}
    """,
    "shown_posts": f"""
        select r.did, r.rkey, r.uri, {_TEXT} from {POSTS}
           and not exists (select from app.labels l
                            where l.value in ('porn', '!hide', 'graphic-media')
                              and l.subject in (r.uri, r.did))
           and not jsonb_path_exists(r.value, 'lax $.labels.values[*].val ? (@ == "porn")')
    """,
    "user_posts": f"""
        select r.did, r.rkey, (select u.user_id from app.users u where u.did = r.did), {_TEXT}
          from {POSTS}
    """,
}


def install(db: Session, role: str) -> None:
    """Run every example as an app would."""
    name = sql.Identifier(role)
    database = sql.Identifier(db.info.dbname)
    db.execute(sql.SQL("grant create on database {} to {}").format(database, name))
    db.execute(sql.SQL("set role {}").format(name))
    db.execute("set search_path = public")
    for path in sorted(FOLDER.glob("*.sql")):
        db.execute(path.read_bytes())
    db.execute("reset role")


def differences(db: Session) -> dict[str, list[str]]:
    """Return what each table holds too much, and what it lacks."""
    found: dict[str, list[str]] = {}
    for table, query in WANTED.items():
        kept = sql.SQL("select t::text from app.{} t").format(sql.Identifier(table))
        is_row = b"select row(w.*)::text as t from (" + query.encode() + b") w"
        held = sorted(str(row["t"]) for row in db.execute(kept).fetchall())
        wanted = sorted(str(row["t"]) for row in db.execute(is_row).fetchall())
        if held != wanted:
            found[table] = [
                *(f"+ {row}" for row in held if row not in wanted),
                *(f"- {row}" for row in wanted if row not in held),
            ]
    return found


def names(db: Session) -> list[str]:
    """Return the projections' names."""
    rows = db.execute("select name from sync.projection_status order by name").fetchall()
    return [str(row["name"]) for row in rows]


def settle(db: Session, limit: int = 1000) -> None:
    """Run every projection until it is at rest; none may have failed."""
    for name in names(db):
        for _ in range(1000):
            db.execute("select sync.run_projection(%s, %s)", [name, limit])
            row = db.execute(
                "select * from sync.projection_status where name = %s", [name]
            ).fetchone()
            assert row is not None
            assert row["state"] != "failed", row
            if row["is_at_rest"] or row["state"] == "paused":
                break
        else:
            raise AssertionError(f"{name} does not come to rest")
