"""The CMS of docker-compose.yml as its editors see it: Wagtail's admin in Chromium, through the balancer."""

import base64
import json
import re
import shutil
import time

from playwright.async_api import async_playwright, expect

from kit.rig.editors import until
from kit.rig.stack import http

ADMIN = "/cms/admin"
PATIENCE = 30_000
"""Milliseconds for what should be there at once: the machine may be busy."""


class Window:
    """A browser window of its own, with somebody signed in."""

    def __init__(self, newsroom, name, context):
        self.newsroom, self.name, self.context, self.page = newsroom, name, context, None
        self.broken = []

    async def open(self, path):
        """Goes to a page of the admin, once it is in sync."""
        if self.page is None:
            self.page = await self.context.new_page()
            self.page.on("pageerror", lambda error: self.broken.append(f"{self.name}: {error}"))
        await self.page.goto(f"{self.newsroom.origin}{ADMIN}/{path}")
        await self.in_sync()
        return self

    async def in_sync(self, seconds=30):
        await expect(self.badge).to_have_text("In sync", timeout=seconds * 1000)

    async def node(self):
        """The name of the node that the window's session is on."""
        # "WebSocket · 3f2a…", which the badge says to whoever points at it.
        return (await self.badge.get_attribute("title")).split(" · ")[1]

    @property
    def badge(self):
        return self.page.locator(".carillon-badge")

    @property
    def summary(self):
        return self.page.get_by_role("textbox", name="Summary")

    @property
    def newer(self):
        return self.page.locator("#carillon-newer")

    async def write(self, text, seconds=60):
        """Types a summary, and waits until Wagtail has saved it by itself.

        Wagtail begins to watch a form two seconds after the page is there, and compares with what the form says then: what
        was typed before is no change. So something else is typed first, until that is saved.
        """
        saved = []

        def note(answer):
            if answer.request.method == "POST" and answer.url.endswith("/edit/") and answer.ok:
                saved.append(answer.request.post_data or "")

        async def noticed():
            await self.summary.fill(f"{text} ({time.monotonic():.0f})")
            try:
                await until(lambda: saved, 3, "a save")
            except AssertionError:
                return False
            return True

        self.page.on("response", note)
        try:
            await until(noticed, seconds, f"{self.name}'s form is watched")
            await self.summary.fill(text)
            last = lambda: any(text in form and f"{text} (" not in form for form in saved)
            await until(last, seconds, f"{self.name}'s summary is saved by itself")
        finally:
            self.page.remove_listener("response", note)

    async def read_on(self, text, by):
        """Is told that somebody has saved, reloads, and reads it."""
        await expect(self.newer).to_contain_text(f"{by} saved a new version.", timeout=PATIENCE)
        await self.newer.get_by_role("button", name="Reload").click()
        await expect(self.summary).to_have_value(text, timeout=PATIENCE)
        await self.in_sync()

    async def comment(self, text):
        """Comments on the summary."""
        await self.page.locator("[data-side-panel-toggle=comments]").click()
        field = self.page.locator("#panel-child-content-summary-section")
        await field.hover()
        await field.locator("[data-comment-add]").first.click()
        await self.page.locator("#comments textarea").first.fill(text)
        await self.page.get_by_role("button", name="Comment", exact=True).click()

    async def token(self):
        """The claims of the token that Wagtail gives."""
        answer = await self.context.request.get(f"{self.newsroom.origin}{ADMIN}/carillon/token/")
        found = re.search(r"eyJ[\w-]+\.([\w-]+)\.", await answer.text())
        assert found, f"no token for {self.name}: {answer.status}"
        return json.loads(base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)))


class Newsroom:
    """Everybody's windows, and what the database says."""

    def __init__(self, stack):
        self.stack, self.origin = stack, f"http://localhost:{stack.port}"
        self.windows, self.passwords, self.articles, self.sections, self.chains = [], {}, {}, {}, {}
        self.play = self.browser = None

    async def begin(self):
        """Reads the passwords where people read them, and what there is to edit."""
        # Not into the rig's own log.
        said = await self.stack.aside(*self.stack.command, "logs", "--no-color", "cms-setup", quiet=True)
        self.passwords = dict(re.findall(r"\|\s+(admin|anna|bilal|chiyo)\s+(\S{12,})", said))
        assert len(self.passwords) == 4, f"the first start printed passwords for {sorted(self.passwords)}"
        chromium = shutil.which("chromium")
        assert chromium, "no chromium on this machine: tests/install installs it"
        self.play = await async_playwright().start()
        self.browser = await self.play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-quic"])
        found = await self.ask("""
from newsroom.models import ArticlePage, SectionPage
from wagtail_carillon.topics import chain_of, key_of
print(json.dumps([dict(ArticlePage.objects.values_list("slug", "pk")), {page.slug: [page.pk, key_of(chain_of(page))] for page in SectionPage.objects.all()}]))
""")
        self.articles, self.sections = found[0], {slug: pk for slug, (pk, _) in found[1].items()}
        self.chains = {slug: chain for slug, (_, chain) in found[1].items()}

    async def ask(self, code):
        """Runs code in an instance that runs, and reads what it prints last as JSON."""
        running = next(container for name in ("cms-02", "cms-01") for container in self.stack.ids(name))
        text = await self.stack.aside("docker", "exec", running, "python3", "manage.py", "shell", "-v", "0", "-c", f"import json\n{code}")
        return json.loads(text.splitlines()[-1])

    async def held(self, article):
        """The summary of an article's newest revision, and how many events wait in the outbox."""
        return await self.ask(f"""
from carillon_notify.django.models import OutboxRow
from wagtail.models import Page
print(json.dumps([Page.objects.get(pk={article}).get_latest_revision().content["summary"], OutboxRow.objects.count()]))
""")

    async def sign_in(self, name):
        """A window of its own for somebody."""
        context = await self.browser.new_context(viewport={"width": 1400, "height": 900})
        context.set_default_timeout(PATIENCE)
        # Round robin over whatever a page asks for, which may be as many requests as there are nodes.
        http(f"{self.origin}/realtime/config")
        page = await context.new_page()
        await page.goto(f"{self.origin}{ADMIN}/login/")
        await page.get_by_label("Username").fill(name)
        await page.get_by_label("Password").fill(self.passwords[name])
        await page.get_by_role("button", name=re.compile("sign in", re.I)).click()
        await page.wait_for_url(f"**{ADMIN}/")
        await page.close()
        window = Window(self, name, context)
        self.windows.append(window)
        return window

    async def end(self):
        """Closes all windows. Nothing may have broken in them."""
        broken = [message for window in self.windows for message in window.broken]
        if self.browser:
            await self.browser.close()
            await self.play.stop()
        self.browser, self.windows = None, []
        assert not broken, broken
