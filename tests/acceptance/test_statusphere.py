"""The app of docs/tutorial/statusphere.md shows what everybody said last, whatever happens."""

import random
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.browser import Tab, find_browser, open_tab
from tests.acceptance.commands import wait_until
from tests.acceptance.sphere import (
    FOLDER,
    PAGE,
    PEOPLE,
    Row,
    Sphere,
    opened_page,
    opened_sphere,
)
from tests.acceptance.terminals import run_block
from tests.network.install import skip_loudly

pytestmark = pytest.mark.slow

ALICE, BOB, CAROL = PEOPLE
NO_CODE = re.compile(r'\s*((--|#|//).*|""".*""")?')
SHOWN = """
    [...document.querySelectorAll("#board li")].map(
      (item) => ["b", "bdi"].map((name) => item.querySelector(name).textContent))
"""
HTML = ("<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "</bdi><b>&amp;", '"><i x="')


def test_every_command_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    with opened_page(tmp_path / "statusphere") as (terminals, blocks, _):
        assert len(blocks) > 20
        for block in blocks:
            run_block(terminals, block)


def test_what_the_page_shows_of_the_files_is_in_them() -> None:
    blocks = re.findall(
        r"^```(sql|python)\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert [language for language, _ in blocks] == ["sql", "python"]
    for (_, text), name in zip(blocks, ("schema.sql", "app.py"), strict=True):
        assert text in (FOLDER / name).read_text(encoding="utf-8")


def test_it_is_as_long_as_the_page_says() -> None:
    said = re.findall(r"^\| \[([\w.]+)\].*? \| (\d+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    lines = {name: (FOLDER / name).read_text("utf-8").splitlines() for name, _ in said}
    code = {name: sum(not NO_CODE.fullmatch(one) for one in lines[name]) for name in lines}
    assert {name: int(number) for name, number in said} == code
    assert len(code) == 3
    assert sum(code.values()) < 125


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sphere]:
    with opened_sphere(tmp_path_factory.mktemp("tutorial") / "statusphere") as made:
        yield made


@pytest.fixture
def sphere(world: Sphere) -> Sphere:
    """Return the app, its network and its service, where nobody has said anything yet."""
    world.clear()
    return world


def test_the_latest_by_its_own_time_counts(sphere: Sphere) -> None:
    sphere.say(ALICE, "a", "🦋", minute=5)
    sphere.say(BOB, "a", "👍", minute=6)
    sphere.await_board("the newest first")
    sphere.say(ALICE, "b", "🕰", minute=1)
    sphere.say(BOB, "b", "🌱", minute=2)
    sphere.say(CAROL, "a", "🚀", minute=4)
    sphere.await_board("what is older changes nothing")
    assert sphere.wanted() == [(BOB, "👍"), (ALICE, "🦋"), (CAROL, "🚀")]
    sphere.say(ALICE, "b", "🎉", minute=9)
    sphere.await_board("an old one that became the latest")
    sphere.say(ALICE, "b", "🎈", minute=3)
    sphere.await_board("the latest that became an old one")
    sphere.take_back(ALICE, "a")
    sphere.take_back(CAROL, "a")
    sphere.await_board("after the latest the one before, or none")
    assert sphere.wanted() == [(BOB, "👍"), (ALICE, "🎈")]


def test_what_is_no_status_is_not_shown(sphere: Sphere) -> None:
    when = "2026-02-01T00:00:00Z"
    odd: list[dict[str, Any]] = [
        {"status": 7, "createdAt": when},
        {"status": "", "createdAt": when},
        {"status": "x" * 33, "createdAt": when},
        {"status": "\0", "createdAt": when},
        {"status": ["🦋"], "createdAt": when},
        {"createdAt": when},
        {"status": "🦋"},
        {"status": "🦋", "createdAt": "yesterday"},
        {"status": "🦋", "createdAt": "infinity"},
        {"status": "🦋", "createdAt": 7},
    ]
    sphere.say(CAROL, "good", "👍", minute=1)
    for number, value in enumerate(odd):
        sphere.write(CAROL, f"odd{number}", value)
    sphere.say(ALICE, "last", "🏁", minute=2)
    try:
        sphere.await_board("nothing but what is a status")
    finally:
        for number in range(len(odd)):
            sphere.take_back(CAROL, f"odd{number}")


def test_a_status_of_the_future_counts_as_of_when_it_came(sphere: Sphere) -> None:
    future = 4_000_000_000
    sphere.say(ALICE, "a", "🔮", future)
    sphere.await_board("it is new")
    sphere.say(BOB, "a", "👍", future - 1)
    sphere.await_board("the one that came later is newer, whatever it says")
    assert sphere.wanted() == [(BOB, "👍"), (ALICE, "🔮")]
    sphere.say(ALICE, "b", "🐢", future - 2)
    sphere.await_board("also of one person")
    assert sphere.wanted() == [(ALICE, "🐢"), (BOB, "👍")]
    sphere.say(ALICE, "b", "🐢", minute=3)
    sphere.await_board("one that is of the past by now")
    assert sphere.wanted() == [(BOB, "👍"), (ALICE, "🔮")]


def test_who_is_hidden_is_not_shown(sphere: Sphere) -> None:
    for minute, who in enumerate(PEOPLE):
        sphere.say(who, "a", "🦋", minute)
    sphere.await_board("everybody")
    sphere.control("deactivate", BOB)
    sphere.hidden = {BOB}
    sphere.await_board("without who has deactivated the account")
    sphere.sql(
        "select sync.take_down_repos(array(select did from sync.repo_status"
        f" where handle = '{CAROL}'))"
    )
    sphere.hidden = {BOB, CAROL}
    sphere.say(CAROL, "b", "🙈", minute=7)
    sphere.await_board("without whom the operator has taken down")
    sphere.control("activate", BOB)
    sphere.sql(
        "select sync.restore_repos(array(select did from sync.repo_status"
        f" where handle = '{CAROL}'))"
    )
    sphere.hidden = set()
    sphere.await_board("everybody again, as they are now")


def test_who_is_no_longer_followed_is_not_shown(sphere: Sphere) -> None:
    for minute, who in enumerate(PEOPLE):
        sphere.say(who, "a", "🦋", minute)
    sphere.await_board("everybody")
    assert sphere.terminals.run(f"standpipe untrack {ALICE}")[0] == 0
    sphere.hidden = {ALICE}
    sphere.await_board("without who was untracked")
    assert sphere.terminals.run(f"standpipe track {ALICE}")[0] == 0
    sphere.hidden = set()
    sphere.await_board("everybody")
    assert sphere.terminals.run("standpipe untrack -c xyz.statusphere.status")[0] == 0
    sphere.hidden = set(PEOPLE)
    sphere.await_board("nobody, since the collection is not kept")
    assert sphere.terminals.run("standpipe track -c xyz.statusphere.status")[0] == 0
    sphere.hidden = set()
    sphere.await_board("everybody again")


def test_a_new_handle_is_shown(sphere: Sphere) -> None:
    sphere.say(BOB, "a", "🦋", minute=1)
    sphere.await_board("the old handle")
    sphere.control("change_handle", BOB, handle="bobby.pds1.test")
    try:
        wait_until(lambda: sphere.board() == [("bobby.pds1.test", "🦋")], "the new handle")
    finally:
        sphere.control("change_handle", "bobby.pds1.test", handle=BOB)
    sphere.await_board("the old handle again")


def test_an_open_page_is_told(sphere: Sphere) -> None:
    with closing(sphere.events()) as events:
        assert next(events) == []
        for minute, status in enumerate("🦋🚀🎉"):
            sphere.say(ALICE, "a", status, minute)
            assert next(events) == [(ALICE, status)]
        sphere.take_back(ALICE, "a")
        assert next(events) == []


def test_it_goes_on_after_kills(sphere: Sphere) -> None:
    sphere.say(ALICE, "a", "🦋", minute=1)
    sphere.say(BOB, "a", "👍", minute=2)
    sphere.await_board("what was said before")
    sphere.kill("app")
    sphere.say(ALICE, "b", "🚀", minute=3)
    sphere.start("app")
    sphere.await_board("what was said while the app was dead")
    sphere.kill("service")
    sphere.say(CAROL, "a", "🌱", minute=4)
    sphere.take_back(ALICE, "b")
    sphere.start("service")
    sphere.await_board("what was said while the service was dead")
    rebuilt = sphere.sql("select * from sync.rebuild_projection('latest status')", as_app=True)
    assert rebuilt == "0|0|0"


def test_it_follows_again_when_its_connection_was_lost(sphere: Sphere) -> None:
    for minute, status in enumerate("🦋🚀🎉"):
        sphere.sql(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where usename = current_user and pid <> pg_backend_pid()",
            as_app=True,
        )
        sphere.say(ALICE, "a", status, minute)
        sphere.await_board("what was said while nobody listened")


def test_whatever_they_do_it_shows_the_latest(sphere: Sphere) -> None:
    chance = random.Random(6)
    for _ in range(4):
        for _ in range(25):
            who, rkey = chance.choice(PEOPLE), chance.choice("abc")
            if rkey in sphere.said.get(who, {}) and chance.random() < 0.4:
                sphere.take_back(who, rkey)
            else:
                sphere.say(who, rkey, chance.choice("🦋🚀🎉👍🌱"), chance.randrange(10_000))
        if chance.random() < 0.5:
            sphere.kill("service")
            sphere.start("service")
        sphere.await_board("the latest of everybody")
    rebuilt = sphere.sql("select * from sync.rebuild_projection('latest status')", as_app=True)
    assert rebuilt == "0|0|0"


# In a browser -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab(world: Sphere) -> Iterator[Tab]:
    """Return the page in a browser."""
    program = find_browser()
    if program is None:
        skip_loudly("NOT TESTED in a browser: there is no Chromium")
        raise AssertionError
    with open_tab(program, world.url) as opened:
        yield opened


def await_shown(sphere: Sphere, tab: Tab, what: str) -> None:
    """Wait until the open page shows what it has to."""

    def shown() -> list[Row]:
        return [(who, status) for who, status in tab.evaluate(SHOWN)]

    wait_until(lambda: shown() == sphere.wanted(), f"in the browser: {what}")


def test_a_browser_shows_it_live(sphere: Sphere, tab: Tab) -> None:
    await_shown(sphere, tab, "nobody yet")
    sphere.say(ALICE, "a", "🦋", minute=1)
    sphere.say(BOB, "a", "👩‍👩‍👧‍👦", minute=2)
    await_shown(sphere, tab, "two of them")
    sphere.take_back(BOB, "a")
    sphere.say(CAROL, "a", "🚀", minute=3)
    await_shown(sphere, tab, "one who went and one who came")
    assert tab.evaluate("state.textContent") == "live"


def test_a_browser_shows_html_as_text(sphere: Sphere, tab: Tab) -> None:
    for text in HTML:
        sphere.say(CAROL, "a", text, minute=1)
        sphere.say(ALICE, "a", "🏁", minute=2)
        await_shown(sphere, tab, text)
    inside = "[...board.querySelectorAll('*')].map((one) => one.localName)"
    assert set(tab.evaluate(inside)) == {"li", "bdi", "b", "time"}


def test_a_browser_shows_a_handle_as_text(sphere: Sphere, tab: Tab) -> None:
    """No such handle passes the service; it is put there by hand."""
    update = (
        "set role sync_owner; update sync.repos set handle = '{}' where handle = '{}';"
        " notify sync_changes"
    )
    sphere.say(BOB, "a", "🦋", minute=1)
    await_shown(sphere, tab, "the handle")
    sphere.sql(update.format(HTML[0], BOB))
    try:
        wait_until(lambda: tab.evaluate(SHOWN) == [[HTML[0], "🦋"]], "HTML in a handle")
        assert tab.evaluate("board.querySelector('img')") is None
    finally:
        sphere.sql(update.format(BOB, HTML[0]))
    await_shown(sphere, tab, "the handle again")


def test_an_open_page_comes_back_after_kills(sphere: Sphere, tab: Tab) -> None:
    sphere.say(ALICE, "a", "🦋", minute=1)
    await_shown(sphere, tab, "before")
    sphere.kill("app")
    sphere.kill("service")
    wait_until(lambda: tab.evaluate("state.textContent") == "connecting …", "it notices")
    sphere.say(ALICE, "b", "🚀", minute=2)
    assert tab.evaluate(SHOWN) == [[ALICE, "🦋"]]
    sphere.start("service")
    sphere.start("app")
    await_shown(sphere, tab, "what was said meanwhile, without a reload")
    assert tab.evaluate("state.textContent") == "live"


def test_a_browser_asks_nobody_else_and_complains_of_nothing(sphere: Sphere, tab: Tab) -> None:
    await_shown(sphere, tab, "something")
    assert tab.asked - {f"{sphere.url}favicon.ico"} == {sphere.url, f"{sphere.url}live"}
    # That nobody answered while the app was dead, it may say.
    assert [said for said in tab.complaints if not said.startswith("Failed to load")] == []
