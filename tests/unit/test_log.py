"""Log lines have one shape, ours and those of libraries, and hide no fields."""

import asyncio
import gc
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from sync import log


@pytest.fixture(autouse=True)
def logging_is_put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_json_lines_carry_event_fields_level_and_name(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("json")
    log.get("sync.firehose").info("connected", source=1, cursor=42)
    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "connected",
        "level": "info",
        "logger": "sync.firehose",
        "source": 1,
        "cursor": 42,
    }


def test_a_library_s_line_has_the_same_shape(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("json")
    logging.getLogger("somelibrary").warning("watch %s", "out")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["logger"]) == ("watch out", "warning", "somelibrary")


def test_lines_below_the_level_and_chatty_libraries_are_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.setup("json", "info")
    log.get("sync.lane").debug("not shown")
    logging.getLogger("httpx").info("not shown either")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "is_told"), [(ConnectionError("lost"), False), (ValueError("a bug"), True)]
)
async def test_a_lost_connection_nobody_waits_for_is_no_news(
    error: Exception, is_told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    log.setup("json", "info")
    gc.collect()  # what other tests have left
    capsys.readouterr()
    future = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    del future
    gc.collect()
    assert ("never retrieved" in capsys.readouterr().err) == is_told


def test_auto_writes_json_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("auto")
    log.get("sync").info("hello")
    assert json.loads(capsys.readouterr().err)["event"] == "hello"


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_never_shows_local_variables(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.setup(form)
    password = "s3" + "cret"
    try:
        raise ValueError(len(password))
    except ValueError:
        log.get("sync").exception("failed")
    shown = capsys.readouterr().err
    assert "ValueError: 6" in shown
    assert "s3cret" not in shown
