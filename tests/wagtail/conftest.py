"""One site for all tests, and editors in browsers of their own. Each test takes pages that no other test touches."""

import re
import shutil
import time

import pytest
from playwright.sync_api import expect, sync_playwright

from kit.wagtail_site import PASSWORD, WagtailSite

PATIENCE = 30_000
"""Milliseconds for what should be there at once: the machine may be busy."""
expect.set_options(timeout=PATIENCE)
PEOPLE = ("anna", "bert", "cleo")


def body_of(tab):
    return tab.get_by_role("textbox", name="Body")


def write(tab, text):
    """Types into the body, and waits until Wagtail has saved it by itself.

    Wagtail begins to watch a form two seconds after the page is there, and compares with what the form says then: what was
    typed before is no change, and so is what is typed while it takes in the answer to a save. So something else is typed first, until
    that is saved, and all of it again where the text itself is not.
    """
    saved = []

    def note(answer):
        if answer.request.method == "POST" and answer.url.endswith("/edit/") and answer.ok:
            saved.append(answer.request.post_data or "")

    def until(holds, seconds):
        end = time.monotonic() + seconds
        while not holds() and time.monotonic() < end:
            tab.wait_for_timeout(50)
        return holds()

    tab.on("response", note)
    try:
        for attempt in range(20):
            saved.clear()
            body_of(tab).fill(f"{text} ({attempt})")
            if not until(lambda: saved, 3):
                continue
            body_of(tab).fill(text)
            if until(lambda: any(text in form and f"{text} (" not in form for form in saved), 10):
                return
        raise AssertionError(f"not saved by itself: {text}")
    finally:
        tab.remove_listener("response", note)


class Editor:
    """Somebody in a browser of their own."""

    def __init__(self, site, context, name, ids):
        self.site, self.context, self.name, self.ids = site, context, name, ids
        self.said, self.broken = [], []

    def tab(self):
        """A new tab. What breaks in it is noted."""
        tab = self.context.new_page()
        tab.on("pageerror", lambda error: self.broken.append(f"{error.message} {error.stack}"))
        tab.on("console", lambda line: self.said.append(line.text))
        return tab

    def sign_in_at(self, url):
        """Signs in at an address of the site; the tab in which it happened."""
        tab = self.tab()
        tab.goto(url + "/admin/login/")
        tab.locator("[name=username]").fill(self.site.login(self.name))
        tab.get_by_label("Password").fill(PASSWORD)
        tab.get_by_role("button", name=re.compile("sign in", re.I)).click()
        tab.wait_for_url("**/admin/")
        return tab

    def open(self, path):
        """A new tab, once it is in sync."""
        tab = self.tab()
        tab.goto(self.site.url + path)
        expect(tab.locator(".carillon-badge")).to_have_text("In sync")
        return tab

    def edit(self, page):
        return self.open(f"/admin/pages/{page}/edit/")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    found = WagtailSite(tmp_path_factory.mktemp("site"))
    yield found
    found.close()


@pytest.fixture(scope="session")
def pages(site):
    """Ids: `home`, `section`, and `pages` below the section."""
    return site.people(*PEOPLE, pages=12)


@pytest.fixture(scope="session")
def chromium():
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-quic"])
        yield browser
        browser.close()


@pytest.fixture
def editors(site, pages, chromium):
    """`editors("anna", "bert")`: signed in, each with a browser of their own. Nothing may break in their pages."""
    made = []

    def sign_in(*names):
        found = []
        for name in names:
            context = chromium.new_context(viewport={"width": 1400, "height": 900})
            context.set_default_timeout(PATIENCE)
            editor = Editor(site, context, name, pages)
            editor.sign_in_at(site.url).close()
            made.append(editor)
            found.append(editor)
        return found

    yield sign_in
    # Wagtail's own comments now and then have nothing to put the focus on while they are saved. It is no fault where it is not ours.
    broken = [(editor.name, text) for editor in made for text in editor.broken if not text.startswith("Your focus-trap") or "carillon" in text]
    warnings = [(editor.name, line) for editor in made for line in editor.said if line.startswith("carillon:")]
    for editor in made:
        editor.context.close()
    assert not broken, broken
    assert not warnings, warnings
