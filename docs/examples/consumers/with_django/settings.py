"""The settings of a minimal project."""

import os

from psycopg.conninfo import conninfo_to_dict

_options = conninfo_to_dict(os.environ["STANDPIPE_DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _options.pop("dbname"),
        "OPTIONS": _options,
    }
}
INSTALLED_APPS = ["posts"]
