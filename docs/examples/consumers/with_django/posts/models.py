"""The app's tables; ../../schema.sql makes them."""

from django.db import models


class Post(models.Model):
    """A post of a tracked account."""

    pk = models.CompositePrimaryKey("did", "rkey")
    did = models.TextField()
    rkey = models.TextField()
    text = models.TextField(null=True)

    class Meta:
        """Where it is kept."""

        db_table = "posts"
        managed = False


class PostCount(models.Model):
    """How many posts an account has."""

    did = models.TextField(primary_key=True)
    posts = models.BigIntegerField()

    class Meta:
        """Where it is kept."""

        db_table = "post_counts"
        managed = False
