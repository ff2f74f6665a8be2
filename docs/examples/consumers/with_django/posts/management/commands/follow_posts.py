"""Keep `Post` and `PostCount` current: read and applied in one `transaction.atomic()`."""

import os
import signal
import time
from collections import Counter
from itertools import groupby
from operator import itemgetter

import psycopg
from django.core.management.base import BaseCommand
from django.db import OperationalError, connection, transaction
from posts.models import Post, PostCount

POLL_S = int(os.environ.get("POLL_S", "30"))

MAKE = """
select sync.create_consumer('posts', p_collections => '{app.bsky.feed.post}')
 where not exists (select from sync.consumer_status where name = 'posts')
"""
# A purge comes for other collections than ours, too.
READ = """
select kind, did, rkey, value ->> 'text' as text from sync.read_changes('posts')
 where kind <> 'purge' or coalesce(collection, 'app.bsky.feed.post') = 'app.bsky.feed.post'
"""
IS_AT_REST = "select is_at_rest from sync.consumer_status where name = 'posts'"


def apply(kind: str, run: list[tuple[str, str, str, str | None]]) -> None:
    """Apply a run of changes of one kind."""
    if kind == "create":
        Post.objects.bulk_create(Post(did=did, rkey=rkey, text=text) for _, did, rkey, text in run)
    elif kind == "update":
        for _, did, rkey, text in run:
            Post.objects.filter(pk=(did, rkey)).update(text=text)
    elif kind == "delete":
        Post.objects.filter(pk__in=[(did, rkey) for _, did, rkey, _ in run]).delete()
    elif kind == "purge":
        for _, did, _, _ in run:
            for model in (Post, PostCount):
                model.objects.filter(**({"did": did} if did else {})).delete()
    if kind in ("create", "delete"):
        for did, n in Counter(did for _, did, _, _ in run).items():
            count, _ = PostCount.objects.get_or_create(did=did, defaults={"posts": 0})
            count.posts += n if kind == "create" else -n
            count.save()


class Command(BaseCommand):
    """Follow until SIGTERM or SIGINT; a lost connection is made again."""

    help = __doc__

    def handle(self, **_options: object) -> None:
        """Run."""
        self.signals: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: self.signals.append(number))
        while not self.signals:
            try:
                self.follow()
            except (OperationalError, psycopg.OperationalError) as error:
                self.stderr.write(str(error))
                connection.close()
                time.sleep(1)

    def follow(self) -> None:
        """Read and apply until a signal; in between wait for NOTIFY."""
        with connection.cursor() as cursor:
            cursor.execute("listen sync_changes")
            cursor.execute(MAKE)
            while not self.signals:
                with transaction.atomic():
                    cursor.execute(READ)
                    changes = cursor.fetchall()
                    for kind, run in groupby(changes, key=itemgetter(0)):
                        apply(kind, list(run))
                cursor.execute(IS_AT_REST)
                if not changes and cursor.fetchone() == (True,):
                    self.wait()

    def wait(self) -> None:
        """Wait for NOTIFY, a second at a time, so that a signal is seen."""
        for _ in range(POLL_S):
            if self.signals or any(connection.connection.notifies(timeout=1, stop_after=1)):
                return
