"""Settings: every one is a STANDPIPE_* variable or a key of one flat TOML file.

The file is the one STANDPIPE_CONFIG names, else `standpipe.toml` in the current folder if there
is one. A variable wins over the file, an option of the command line over both. A name nobody
knows is refused, because a misspelt limit that is silently ignored is no limit.
"""

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sync import __version__
from sync.errors import ConfigurationError

PREFIX = "STANDPIPE_"
CONFIG_VARIABLE = "STANDPIPE_CONFIG"
# Switches of the test suite, which are not settings of the service.
TEST_PREFIX = "STANDPIPE_TEST_"
DEFAULT_FILE = "standpipe.toml"

MAX_LANES = 256
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _text(value: str) -> str:
    return value


def _optional_text(value: str) -> str | None:
    return value or None


def _path(value: str) -> Path:
    return Path(value).expanduser()


def _flag(value: str) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if value.lower() not in known:
        raise ValueError("expected true or false")
    return known[value.lower()]


def _count(value: str) -> int:
    number = int(value.replace("_", ""))
    if number < 1:
        raise ValueError("expected 1 or more")
    return number


def _lanes(value: str) -> int:
    number = _count(value)
    if number > MAX_LANES:
        raise ValueError(f"expected at most {MAX_LANES}")
    return number


def _seconds(value: str) -> float:
    number = float(value)
    if not 0 < number < float("inf"):
        raise ValueError("expected a number of seconds above 0")
    return number


def _size(value: str) -> int:
    """Read a number of bytes such as 512, 64k, 5MiB or 2 GiB (all in powers of 1024)."""
    text = value.strip().lower().removesuffix("b").removesuffix("i")
    unit = text[-1:] if text[-1:].isalpha() else ""
    if unit not in _UNITS:
        raise ValueError("expected bytes, as in 512, 64k, 5MiB or 2GiB")
    return _count(text.removesuffix(unit).strip()) * _UNITS[unit]


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.lower() not in allowed:
            raise ValueError(f"expected one of {', '.join(allowed)}")
        return value.lower()

    return parse


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"expected a URL that begins with {' or '.join(schemes)}://")
        return value.rstrip("/")

    return parse


def _database_url(value: str) -> str | None:
    if value and urlsplit(value).scheme not in {"postgresql", "postgres"}:
        raise ValueError("expected a URL that begins with postgresql://")
    if urlsplit(value).netloc.count("@") > 1:  # libpq would take the rest for the host, and name it
        raise ValueError("expected %40 for an @ in the password")
    return value or None


def _urls(value: str) -> tuple[str, ...]:
    parse = _url("http", "https")
    return tuple(parse(part.strip()) for part in value.split(",") if part.strip())


def _key_variables(value: str) -> tuple[tuple[str, str], ...]:
    """Read pairs of a host and the variable that holds its key."""
    pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
    for host, _, name in pairs:
        if not (host and name.isascii() and name.isidentifier()):
            raise ValueError("expected host=VARIABLE, as in api.openai.com=OPENAI_API_KEY")
    return tuple((host.lower(), name) for host, _, name in pairs)


def _setting(default: Any, parse: Callable[[str], Any], help_text: str) -> Any:
    """Declare a field with its parser and the sentence of the reference manual."""
    return field(default=default, metadata={"parse": parse, "help": help_text})


# ruff: noqa: RUF009  (each default is a field() with its parser and help)
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a user can choose, with the defaults that run against the public network."""

    database_url: str | None = _setting(
        None,
        _database_url,
        "The PostgreSQL (15 to 18) to work in, as postgresql://user:password@host:port/database. "
        "Unset: an embedded server in `data_dir`.",
    )
    data_dir: Path = _setting(
        Path("standpipe-data"),
        _path,
        "The folder of the embedded PostgreSQL and of temporary downloads.",
    )
    spool_dir: Path | None = _setting(
        None,
        lambda value: _path(value) if value else None,
        "The folder where repo exports wait for verification. Unset: `spool` in `data_dir`.",
    )
    relay_url: str = _setting(
        "https://bsky.network",
        _url("https", "wss", "http", "ws"),
        "The relay or PDS whose firehose is read.",
    )
    relay_kind: str = _setting(
        "relay",
        _one_of("relay", "pds"),
        "What `relay_url` is: `relay` (many hosts) or `pds` (only its own accounts).",
    )
    plc_url: str = _setting(
        "https://plc.directory", _url("https", "http"), "The directory that resolves did:plc."
    )
    allow_private_hosts: bool = _setting(
        False,
        _flag,
        "Development only: also connect to loopback and private addresses, and over plain http.",
    )
    handle_base_urls: tuple[str, ...] = _setting(
        (),
        _urls,
        "Development only: comma-separated URLs of servers that are asked for handles by their "
        "`Host:` header, instead of DNS and the handle's own host.",
    )
    user_agent: str = _setting(
        f"standpipe/{__version__}",
        _text,
        "How requests to other people's servers introduce themselves; put your contact here.",
    )
    lanes: int = _setting(
        min(4, os.cpu_count() or 1),
        _lanes,
        "How many processes verify and apply the events of a source, each those of its share of "
        "the repos: 1 to 256. The default is one a processor, at most 4. Several services on one "
        "database share them; whoever reads a source alone decides how many there are.",
    )
    batch_max: int = _setting(
        1000, _count, "The most firehose events that are applied in one transaction."
    )
    max_frame_bytes: int = _setting(5 << 20, _size, "The largest firehose frame that is accepted.")
    max_repo_bytes: int = _setting(
        2 << 30, _size, "The largest repo export that is downloaded; a larger one fails."
    )
    max_repo_records: int = _setting(
        20_000_000, _count, "The most records of one repo; one with more fails."
    )
    max_concurrent_fetches: int = _setting(
        8,
        _count,
        "How many repos are downloaded at the same time. A download that takes longer than 20 "
        "seconds no longer counts, so that slow hosts keep nobody waiting.",
    )
    fetches_per_host: int = _setting(4, _count, "How many of those may come from one host.")
    fetch_timeout_s: float = _setting(
        600.0,
        _seconds,
        "How long one download may take, in seconds, and how much time of a processor its "
        "verification.",
    )
    log_lock_idle_s: float = _setting(
        60.0,
        _seconds,
        "How long a session may idle with the change log's lock before the service ends it, in "
        "seconds.",
    )
    compare_every_s: float = _setting(
        604_800.0,
        _seconds,
        "How often the revs of all repos are compared with what their PDSes say, in seconds: the "
        "default is a week. What a stream has left out unnoticed is found by that.",
    )
    embedder_keys: tuple[tuple[str, str], ...] = _setting(
        (),
        _key_variables,
        "Which variables of the environment hold the keys of embedders for semantic search, by "
        "their hosts: comma-separated, as in `api.openai.com=OPENAI_API_KEY`. A key is sent to its "
        "host only, and stored nowhere.",
    )
    log_format: str = _setting(
        "auto",
        _one_of("auto", "console", "json"),
        "`console` for people, `json` for machines (one object a line), `auto` by terminal.",
    )
    log_level: str = _setting(
        "info", _one_of("debug", "info", "warning", "error"), "The least important line shown."
    )

    @property
    def spool_folder(self) -> Path:
        """Return where downloads wait, whether set or derived."""
        return self.spool_dir or self.data_dir / "spool"


def known_keys() -> tuple[str, ...]:
    """Return the name of every setting."""
    return tuple(item.name for item in fields(Settings))


def variable(key: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + key.upper()


def load_settings(
    environ: Mapping[str, str] | None = None,
    *,
    folder: Path | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings from the file, the environment and the command line, in rising order."""
    env = os.environ if environ is None else environ
    values: dict[str, tuple[str, str]] = {}  # key → (text, where it came from)
    path = _config_path(env, folder or Path.cwd())
    if path is not None:
        for key, value in _read_file(path).items():
            _require_known(key, known_keys(), f"{path} sets {key}")
            values[key] = (_as_text(key, value, path), f"{key} in {path}")
    variables = {variable(key): key for key in known_keys()}
    for name, text in env.items():
        if not name.startswith(PREFIX) or name.startswith(TEST_PREFIX) or name == CONFIG_VARIABLE:
            continue
        _require_known(name, (*variables, CONFIG_VARIABLE), f"The environment sets {name}")
        if text.strip():  # an empty variable is an unset one: compose files pass those
            values[variables[name]] = (text.strip(), name)
    for key, text in (overrides or {}).items():
        _require_known(key, known_keys(), f"The command line sets {key}")
        values[key] = (text, f"--{key.replace('_', '-')}")
    return _checked(Settings(**_parse_all(values)))


def render_reference() -> str:
    """Write the configuration page of the manual; a test compares it with the one in docs/."""
    introduction = (
        "Each setting is an environment variable or, in lower case and without `STANDPIPE_`, a "
        "key of a flat TOML file: the one that `STANDPIPE_CONFIG` names, else `standpipe.toml` "
        "in the current folder. A variable wins over the file, an option of the command line "
        "over both; an empty variable counts as unset. Unknown names are refused. Sizes are "
        "bytes or carry a unit (`64k`, `5MiB`, `2GiB`); relative paths start at the current "
        "folder."
    )
    lines = ["# Configuration", "", introduction, ""]
    lines += ["| variable | default | what it is |", "|---|---|---|"]
    lines += [
        f"| `{variable(item.name)}` | {_shown_default(item)} | {item.metadata['help']} |"
        for item in fields(Settings)
    ]
    return "\n".join([*lines, ""])


def _shown_default(item: "Field[Any]") -> str:
    value = item.default
    if value is None or value == ():
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if item.name == "user_agent":
        return "`standpipe/` and the version"
    if item.metadata["parse"] is _size and isinstance(value, int):
        unit, name = (1 << 30, "GiB") if value >= 1 << 30 else (1 << 20, "MiB")
        return f"`{value // unit}{name}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _config_path(env: Mapping[str, str], folder: Path) -> Path | None:
    named = env.get(CONFIG_VARIABLE, "").strip()
    if named:
        return folder / named
    path = folder / DEFAULT_FILE
    return path if path.is_file() else None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}.") from error


def _as_text(key: str, value: object, path: Path) -> str:
    """Bring a TOML value to the text a variable would have, so that one parser reads both."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(_as_text(key, item, path) for item in value)
    if isinstance(value, str | int | float):
        return str(value)
    raise ConfigurationError(f"{key} in {path} must be a text, a number, true or false.")


def _require_known(name: str, known: tuple[str, ...], what: str) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "see docs/reference/configuration.md."
    raise ConfigurationError(f"{what}, which is no setting: {hint}")


def _parse_all(values: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for item in fields(Settings):
        if item.name not in values:
            continue
        text, origin = values[item.name]
        try:
            parsed[item.name] = item.metadata["parse"](text)
        except ValueError as error:
            numeric = item.metadata["parse"] in {_count, _seconds, _size}
            fallback = "expected a number" if numeric else "expected a valid URL"
            reason = str(error) if str(error).startswith("expected") else fallback
            shown = "" if item.name in {"database_url", "embedder_keys"} else f" ({text!r})"
            raise ConfigurationError(f"{origin} cannot be used{shown}: {reason}.") from error
    return parsed


def _checked(settings: Settings) -> Settings:
    """Refuse combinations that only make sense in development."""
    if settings.allow_private_hosts:
        return settings
    for key in ("relay_url", "plc_url"):
        if urlsplit(getattr(settings, key)).scheme in {"http", "ws"}:
            raise ConfigurationError(
                f"{variable(key)} is not encrypted: use https, or set "
                f"{variable('allow_private_hosts')}=true in development."
            )
    if settings.handle_base_urls:
        raise ConfigurationError(
            f"{variable('handle_base_urls')} only works with "
            f"{variable('allow_private_hosts')}=true, in development."
        )
    return settings
