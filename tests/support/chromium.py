"""A real browser: Debian's Chromium, driven by Playwright. Tests fail, and do not skip, where it is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

_PATH = Path("/usr/bin/chromium")


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """Ends with the block; nothing of it stays. ``arguments``: more for its command line."""
    assert _PATH.exists(), f"there is no {_PATH}: install it, on Debian by apt-get install chromium (.ci/run does)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(_PATH), args=["--no-sandbox", *arguments])
        try:
            yield browser
        finally:
            browser.close()


def complaints(page: Page) -> list[str]:
    """A list that grows with every error of the page's scripts, its policy and its loading; favicons do not count."""
    found: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and "favicon" not in str(message.location):
            found.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found
