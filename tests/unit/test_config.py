"""Settings come from one place each, and a mistake in them is one clear sentence."""

from pathlib import Path

import pytest

from sync.config import Settings, known_keys, load_settings, render_reference, variable
from sync.errors import ConfigurationError

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def refusal(environ: dict[str, str], folder: Path = Path("/nonexistent")) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ, folder=folder)
    return str(caught.value)


def test_without_any_setting_it_runs_against_the_public_network(tmp_path: Path) -> None:
    settings = load_settings({}, folder=tmp_path)
    assert settings == Settings()
    assert settings.relay_url == "https://bsky.network"
    assert settings.plc_url == "https://plc.directory"
    assert settings.database_url is None
    assert settings.spool_folder == Path("standpipe-data/spool")


def test_a_variable_wins_over_the_file_and_an_option_over_both(tmp_path: Path) -> None:
    (tmp_path / "standpipe.toml").write_text("batch_max = 10\nfetches_per_host = 2\n")
    environ = {"STANDPIPE_BATCH_MAX": "20"}
    settings = load_settings(environ, folder=tmp_path)
    assert (settings.batch_max, settings.fetches_per_host) == (20, 2)
    settings = load_settings(environ, folder=tmp_path, overrides={"batch_max": "30"})
    assert settings.batch_max == 30


def test_the_file_may_be_named_and_uses_toml_types(tmp_path: Path) -> None:
    (tmp_path / "dev.toml").write_text(
        "allow_private_hosts = true\nfetch_timeout_s = 2.5\nmax_repo_bytes = '64 MiB'\n"
        "handle_base_urls = ['http://127.0.0.1:1', 'http://127.0.0.1:2/']\n"
    )
    settings = load_settings({"STANDPIPE_CONFIG": str(tmp_path / "dev.toml")}, folder=tmp_path)
    assert settings.allow_private_hosts is True
    assert settings.fetch_timeout_s == 2.5
    assert settings.max_repo_bytes == 64 << 20
    assert settings.handle_base_urls == ("http://127.0.0.1:1", "http://127.0.0.1:2")


def test_an_unknown_variable_is_refused_with_the_nearest_name() -> None:
    assert "did you mean STANDPIPE_RELAY_URL?" in refusal({"STANDPIPE_RELAY_ULR": "x"})


def test_an_unknown_key_of_the_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "standpipe.toml").write_text("bach_max = 10\n")
    assert "did you mean batch_max?" in refusal({}, tmp_path)


def test_switches_of_the_test_suite_are_no_settings(tmp_path: Path) -> None:
    assert load_settings({"STANDPIPE_TEST_ANYTHING": "1"}, folder=tmp_path) == Settings()


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    assert load_settings({"STANDPIPE_DATABASE_URL": ""}, folder=tmp_path).database_url is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BATCH_MAX", "many"),
        ("BATCH_MAX", "0"),
        ("MAX_REPO_BYTES", "5 parsecs"),
        ("FETCH_TIMEOUT_S", "-1"),
        ("FETCH_TIMEOUT_S", "nan"),
        ("LOG_FORMAT", "xml"),
        ("RELAY_KIND", "cable"),
        ("RELAY_URL", "bsky.network"),
        ("RELAY_URL", "https://[broken"),
        ("DATABASE_URL", "postgresql://user@[broken/app"),
        ("DATABASE_URL", "mysql://user:pass@host/db"),
        ("ALLOW_PRIVATE_HOSTS", "perhaps"),
        ("HANDLE_BASE_URLS", "localhost:1"),
    ],
)
def test_a_malformed_value_names_its_variable_and_what_was_expected(name: str, value: str) -> None:
    sentence = refusal({f"STANDPIPE_{name}": value})
    assert sentence.startswith(f"STANDPIPE_{name}")
    assert "expected" in sentence


def test_a_refused_database_url_does_not_show_its_password() -> None:
    assert "s3cret" not in refusal({"STANDPIPE_DATABASE_URL": "mysql://user:s3cret@host/db"})
    unescaped = refusal({"STANDPIPE_DATABASE_URL": "postgresql://user:p@s3cret@host/db"})
    assert "s3cret" not in unescaped
    assert "%40" in unescaped


def test_plain_http_needs_the_development_switch(tmp_path: Path) -> None:
    environ = {"STANDPIPE_PLC_URL": "http://127.0.0.1:2582"}
    assert "allow_private_hosts".upper() in refusal(environ)
    environ["STANDPIPE_ALLOW_PRIVATE_HOSTS"] = "true"
    assert load_settings(environ, folder=tmp_path).plc_url == "http://127.0.0.1:2582"


def test_a_missing_or_broken_file_is_one_sentence(tmp_path: Path) -> None:
    assert "cannot be read" in refusal({"STANDPIPE_CONFIG": str(tmp_path / "none.toml")})
    (tmp_path / "standpipe.toml").write_text("batch_max = = 1")
    assert "not valid TOML" in refusal({}, tmp_path)
    (tmp_path / "standpipe.toml").write_text("[batch_max]\nx = 1")
    assert "must be a text" in refusal({}, tmp_path)


def test_the_reference_page_is_what_the_settings_say() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == render_reference(), "run `make schema`"


def test_the_reference_names_every_variable() -> None:
    page = render_reference()
    assert all(f"`{variable(key)}`" in page for key in known_keys())
