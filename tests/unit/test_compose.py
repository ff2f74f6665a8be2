"""The production files as text, since a build machine need not have docker."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import sync
from sync.config import CONFIG_VARIABLE, known_keys, load_settings, variable
from sync.roles import ROLES

CHECKOUT = Path(__file__).parents[2]
VARIABLES = {"ADMIN_PASSWORD": "adminpass", "SERVICE_PASSWORD": "servicepass"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def environment(compose: dict[str, Any], service: str) -> dict[str, str]:
    """Return a service's variables as docker would fill them in."""

    def fill(match: re.Match[str]) -> str:
        name, _, default = match.group(1).partition(":-")
        return VARIABLES.get(name.partition(":?")[0], default)

    given = compose["services"][service].get("environment", {})
    return {name: re.sub(r"\$\{([^}]*)\}", fill, str(value)) for name, value in given.items()}


def test_every_setting_it_passes_is_one_the_service_knows(compose: dict[str, Any]) -> None:
    known = {variable(key) for key in known_keys()} | {CONFIG_VARIABLE}
    for service in compose["services"]:
        given = environment(compose, service)
        assert {name for name in given if name.startswith("STANDPIPE_")} <= known


@pytest.mark.parametrize("service", ["upgrade", "run"])
def test_the_settings_can_be_read(compose: dict[str, Any], service: str, tmp_path: Path) -> None:
    settings = load_settings(environment(compose, service), folder=tmp_path)
    assert settings.database_url is not None
    assert settings.log_format == "json"


def test_the_service_is_not_the_superuser_and_the_upgrade_is(compose: dict[str, Any]) -> None:
    run = environment(compose, "run")["STANDPIPE_DATABASE_URL"]
    upgrade = environment(compose, "upgrade")["STANDPIPE_DATABASE_URL"]
    assert run == "postgresql://standpipe:servicepass@db:5432/standpipe"
    assert upgrade == "postgresql://postgres:adminpass@db:5432/standpipe"


def test_every_image_has_a_version_and_none_is_latest(compose: dict[str, Any]) -> None:
    images = [service["image"] for service in compose["services"].values()]
    dockerfile = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8")
    images += re.findall(r"(?m)^FROM (\S+)", dockerfile)
    assert all(re.search(r":[\w.-]*\d", image) and "latest" not in image for image in images)


def test_our_image_carries_our_version(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["upgrade"]["image"] == f"standpipe:{sync.__version__}"
    assert services["run"]["image"] == services["upgrade"]["image"]


def test_the_database_is_17_with_pgvector_and_ready_for_logical_replication(
    compose: dict[str, Any],
) -> None:
    database = compose["services"]["db"]
    assert re.fullmatch(r"pgvector/pgvector:[\d.]+-pg17", database["image"])
    assert "wal_level=logical" in database["command"]


def test_the_service_starts_after_a_finished_upgrade(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["upgrade"]["depends_on"]["db"]["condition"] == "service_healthy"
    after = services["run"]["depends_on"]["upgrade"]["condition"]
    assert after == "service_completed_successfully"
    assert services["upgrade"]["restart"] == "no"


def test_the_prepared_roles_are_the_ones_an_upgrade_would_make() -> None:
    script = (CHECKOUT / "docker" / "prepare-database.sh").read_text(encoding="utf-8")
    assert re.findall(r"create role (sync_\w+) nologin;", script) == list(ROLES)


def test_the_image_is_built_from_what_the_wheel_needs() -> None:
    dockerfile = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8")
    ignored = (CHECKOUT / ".dockerignore").read_text(encoding="utf-8")
    for name in ("sync", "sql", "migrations", "pyproject.toml", "README.md"):
        assert re.search(rf"COPY .*\b{re.escape(name)}\b", dockerfile)
        assert f"!{name}" in ignored
