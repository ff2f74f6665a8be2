"""A page in a real browser without a window, and what it asked for and said."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Dialog, Page, sync_playwright

NAMES = (
    "chromium", "chromium-browser", "chromium-headless-shell", "google-chrome",
    "google-chrome-stable",
)  # fmt: skip
# It looks nowhere but on this machine, whatever it would like to fetch for itself.
ONLY_HERE = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"


def find_browser() -> str | None:
    """Return the path of a browser of the Chromium family, if this machine has one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Tab:
    """One page that is never reloaded."""

    page: Page
    asked: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.asked.add(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("dialog", self._close)

    def _close(self, dialog: Dialog) -> None:
        self.complaints.append(dialog.message)
        dialog.dismiss()

    def evaluate(self, expression: str) -> Any:
        """Return what an expression is in the page."""
        return self.page.evaluate(expression)


@contextmanager
def open_tab(program: str, url: str) -> Iterator[Tab]:
    """Start a browser with an empty profile, and open one page in it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[ONLY_HERE])
        try:
            tab = Tab(browser.new_page())
            tab.page.goto(url)
            yield tab
        finally:
            browser.close()
