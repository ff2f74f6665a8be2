"""What a history may be made of."""

from typing import TypeAlias

from hypothesis import strategies as st

from tests.sql.driver import LIKE, POST, did

FOLLOW = "app.bsky.graph.follow"
MOST_CONSUMERS = 4
OPEN, COMMIT, ROLLBACK = "open", "commit", "rollback"

places = st.integers(0, 3)
repos = st.integers(0, 3)
some_repos = st.lists(repos, min_size=1, max_size=2, unique=True)
ends = st.sampled_from([COMMIT, COMMIT, OPEN, OPEN, OPEN, ROLLBACK])
limits = st.integers(1, 7)
keys = st.tuples(st.sampled_from([POST, LIKE, FOLLOW]), st.sampled_from("abcd"))
several_keys = st.lists(keys, min_size=1, max_size=4)
patterns = st.sampled_from([POST, LIKE, "app.bsky.feed.*", "*"])
beginnings = st.sampled_from([[POST, LIKE, FOLLOW], ["app.bsky.feed.*", FOLLOW], ["*"]])
filters = st.sampled_from(
    [
        (None, None, 1),
        (None, None, 1),
        (None, None, 2),
        ([LIKE], None, 1),
        (None, [did(1), did(2)], 1),
        (["app.bsky.feed.*"], [did(0), did(1), did(3)], 3),
    ]
)

Filter: TypeAlias = tuple[list[str] | None, list[str] | None, int]
starts = st.sampled_from(["beginning", "now"])
several_commits = st.lists(several_keys, min_size=1, max_size=2)
mostly = st.sampled_from([True, True, True, False])
rarely = st.sampled_from([False, False, False, True])
HIDING = ["take_down_repos", "restore_repos", "restore_repos", "activate", "deactivate"]
TRACKING = [
    "track_repos", "untrack_repos", "untrack and track", "set_identity", "track_collections",
    "track_collections", "untrack_collections", "untrack_collections",
]  # fmt: skip
SHOWING = ("restore_repos", "track_repos")
UPKEEP = ["now", "now", "now", "in vain", "later", "hidden and later", "drop"]
