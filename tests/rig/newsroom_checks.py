"""The CMS of docker-compose.yml: Wagtail on two instances, and editors in Chromium who see each other work."""

import asyncio
import json
import time

from playwright.async_api import expect

from kit.rig.editors import until
from kit.rig.newsroom import PATIENCE
from kit.rig.stack import http

ARTICLE, OTHER = "news-1", "sport-1"


class NewsroomChecks:
    """Checks of the CMS; `self` is the rig. `writer` (Anna) and `reader` (Bilal) keep one article open from the first one on."""

    async def both_instances_answer(self):
        answered = lambda: {json.loads(http(f"{self.newsroom.origin}/cms/health/")[1])["instance"] for _ in range(8)}
        await until(lambda: answered() == {"cms-01", "cms-02"}, 30, "both instances answer in turn")

    async def newsroom_is_there(self):
        await self.both_instances_answer()
        status, body = http(f"{self.newsroom.origin}/", headers={"Accept": "text/html"})
        assert status == 200 and "Sign in" in body, f"the address itself does not lead to Wagtail: {status}"
        status, body = http(f"{self.newsroom.origin}/cms/")
        assert status == 200 and "News" in body, f"the site's front page: {status} {body[:200]}"
        status, body = http(f"{self.newsroom.origin}/demo/")
        assert status == 404, f"the pretend CMS of `carillon dev` is served: {status}"
        # A second start changes nothing, and prints no password.
        second = self.stack.aside(*self.stack.command, "run", "--rm", "cms-setup", quiet=True, timeout=120)
        again, _ = await asyncio.gather(second, self.newsroom.begin())
        assert "with the passwords of the first start" in again and not any(word in again for word in self.newsroom.passwords.values()), "a second setup"
        return f"{len(self.newsroom.articles)} articles, {len(self.newsroom.passwords)} editors with passwords of the first start"

    async def two_windows(self):
        article = self.newsroom.articles[ARTICLE]
        self.writer = await (await self.newsroom.sign_in("anna")).open(f"pages/{article}/edit/")
        self.reader = await (await self.newsroom.sign_in("bilal")).open(f"pages/{article}/edit/")
        await self.one_writes_the_other_reads()
        # Comments appear in place, both ways.
        await self.reader.comment(f"Said at {time.time():.0f}")
        await self.writer.page.locator("[data-side-panel-toggle=comments]").click()
        await expect(self.writer.page.locator("#comments")).to_contain_text("Said at", timeout=PATIENCE)
        for window in (self.writer, self.reader):
            await window.in_sync()
        return await self.explorer()

    async def explorer(self):
        """A row changes under the eyes of a third; somebody with one section gets what is theirs and nothing else."""
        chiyo = await self.newsroom.sign_in("chiyo")
        sport, other = self.newsroom.sections["sport"], self.newsroom.articles[OTHER]
        claims, chain = await chiyo.token(), self.newsroom.chains["sport"]
        beyond = [t for t in claims["topics"] if not t.startswith("tree:") and t.partition(":")[2] not in (chain, f"{chain}/*")]
        assert claims["topics"] and not beyond, f"an editor of {chain} may follow {beyond}"
        await chiyo.open(f"pages/{sport}/")
        row = chiyo.page.locator("#listing-results tr", has_text="Rowers wait for the river").first
        await expect(row).to_contain_text("Live", ignore_case=True, timeout=PATIENCE)
        bilal = await self.newsroom.sign_in("bilal")
        await bilal.open(f"pages/{other}/unpublish/")
        await bilal.page.get_by_role("button", name="unpublish").click()
        await expect(row).to_contain_text("Draft", ignore_case=True, timeout=PATIENCE)
        for window in (chiyo, bilal):
            await window.page.close()
            assert not window.broken, window.broken
            self.newsroom.windows.remove(window)
        return f"saves, comments and rows; Chiyo's token has {len(claims['topics'])} grants, all of her section"

    async def one_writes_the_other_reads(self):
        """Anna saves, Bilal is told and reads on: over whatever nodes and instances they are on at the moment."""
        for window in (self.writer, self.reader):
            await window.in_sync()
        self.saved = f"Words of {time.time():.3f}"
        await self.writer.write(self.saved)
        await self.reader.read_on(self.saved, "Anna")

    async def screens_equal_the_database(self):
        held, waiting = await self.newsroom.held(self.newsroom.articles[ARTICLE])
        shown = [await window.summary.input_value() for window in (self.writer, self.reader)]
        assert [held, *shown] == [self.saved] * 3, f"the database has {held!r}, the screens show {shown}, saved was {self.saved!r}"
        badges = [await window.badge.inner_text() for window in (self.writer, self.reader)]
        assert set(badges) == {"In sync"}, badges
        assert waiting == 0, f"{waiting} events wait in the outbox"
        await self.newsroom.end()
