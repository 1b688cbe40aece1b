// Chromium, and what the demo's page shows: looked at as a user would, by role and text.
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { until } from './harness.js';

const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
let browser = null;
export async function launch() { return browser ??= await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS }); }
export async function quit() { await browser?.close(); browser = null; }

const kept = fileURLToPath(new URL('../../output/screenshots/', import.meta.url));
mkdirSync(kept, { recursive: true });
/** The machine sleeps: all processes of the browser stand still meanwhile. Gives the moment at which it woke up. */
export async function asleep(meanwhile) {
  const { processInfo } = await (await browser.newBrowserCDPSession()).send('SystemInfo.getProcessInfo');
  const all = (signal) => { for (const { id } of processInfo) process.kill(id, signal); };
  all('SIGSTOP');
  try { await meanwhile(); return Date.now(); } finally { all('SIGCONT'); }
}

/** A picture that the run keeps, in tests/output/screenshots. */
export const picture = (page, name, folder = kept) => page.screenshot({ path: `${folder}${name}.png`, animations: 'disabled' });

/** A browser of its own (cookies, workers), ended with the test. */
export async function context(t, options = {}) {
  const c = await (await launch()).newContext({ viewport: { width: 1180, height: 900 }, ...options });
  t.after(() => c.close());
  return c;
}

/** The pane of an editor, ready to be asked things. */
export async function pane(ctx, base, editor, query = '') {
  const page = await ctx.newPage();
  await page.addInitScript(() => {    // when the badge first says live, on the page's own clock
    const seen = setInterval(() => { if (document.querySelector('#badge')?.dataset.state === 'live') { window.liveAt = performance.now(); clearInterval(seen); } }, 10);
  });
  return watch(page, async () => { await page.goto(`${base}/demo/pane.html?editor=${editor}${query}`); });
}
export async function watch(page, go) {
  const said = [], broken = [];
  page.on('console', (m) => (/Content Security Policy|Content-Security-Policy/.test(m.text()) ? broken : said).push(m.text()));
  page.on('pageerror', (e) => broken.push(e.message));
  await go();
  return Object.assign(screen(page), { said, broken });
}

export function screen(page) {
  const badge = page.locator('#badge');
  return {
    page,
    badge,
    text: (selector) => page.locator(selector).innerText(),
    state: () => badge.getAttribute('data-state'),
    /** ms from the moment at which the client was there to that at which it was live. */
    liveAfter: () => page.evaluate(() => window.liveAt - performance.getEntriesByType('resource').find((e) => e.name.endsWith('/realtime.js')).responseEnd),
    /** From now on: every state of the badge, with its moment. `states(from, to)` are those that it showed between the two. */
    record: async () => {
      await page.evaluate(() => {
        const badge = document.querySelector('#badge');
        window.shown = [[Date.now(), badge.dataset.state]];
        new MutationObserver(() => window.shown.push([Date.now(), badge.dataset.state])).observe(badge, { attributes: true, attributeFilter: ['data-state'] });
      });
      return async (from = 0, to = Infinity) => {
        const all = await page.evaluate(() => window.shown);
        const before = all.filter(([at]) => at <= from).at(-1);
        return [...new Set([...(before ? [before] : []), ...all.filter(([at]) => at > from && at < to)].map(([, state]) => state))];
      };
    },
    /** The raw messages of a kind. */
    raw: (type) => page.evaluate((type) => [...document.querySelectorAll('#messages pre')].map((p) => JSON.parse(p.textContent)).filter((m) => m.type === type), type),
    /** Waits until the bar says live, by this transport: live('WebSocket'). The transport is for who hovers over it, not in its text. */
    live: (transport, ms = 30_000) => until(`the bar says Live${transport ? `, by ${transport}` : ''}`, async () => {
      const [shown, by] = await badge.evaluate((b) => [b.innerText.trim(), b.dataset.transport]);
      if (shown.startsWith('Live') && (!transport || by === transport)) return true;
      throw new Error(`it says “${shown}”, by ${by}`);
    }, ms),
    becomes: (state, ms = 30_000) => until(`the badge is ${state}`, async () => (await badge.getAttribute('data-state')) === state, ms),
    unread: () => page.locator('#unread').evaluate((bell) => (bell.hidden ? 0 : Number(bell.textContent))),
    comments: () => page.locator('#comments .entry').allInnerTexts(),
    statusOf: (item) => page.locator('#items tr', { hasText: item }).locator('select').inputValue(),
    comment: async (text) => { await page.getByLabel('Your comment').fill(text); await page.getByRole('button', { name: 'Comment', exact: true }).click(); },
    shows: (text, ms) => until(`the page shows “${text}”`, async () => (await page.locator('#comments').innerText()).includes(text), ms),
    audit: () => page.locator('#audit').evaluate((a) => Object.fromEntries(Object.entries(a.dataset).map(([k, v]) => [k, Number(v)]))),
    faults: async (...on) => {
      await page.locator('#break-button').click();
      for (const id of ['block-websocket', 'block-sse', 'offline', 'stale']) await page.locator(`#${id}`).setChecked(on.includes(id));
      await page.keyboard.press('Escape');
    },
  };
}

/** What the page shows equals what the simulated CMS holds, and its auditor counted no hole and no double. */
export async function settled(screen, node, editor, project = 42) {
  await until(`${editor}'s page equals the CMS`, async () => {
    const items = await node.api(`projects/${project}/items`);
    const comments = await node.api(`projects/${project}/comments`);
    const bell = await node.api(`notifications?editor=${editor}`);
    const shown = await screen.page.evaluate(() => ({
      items: [...document.querySelectorAll('#items tr')].map((r) => `${r.dataset.item} ${r.querySelector('select').value} ${r.querySelector('button').textContent}`),
      comments: [...document.querySelectorAll('#comments .entry')].map((e) => e.dataset.comment),
      notifications: [...document.querySelectorAll('#notifications [data-notification]')].map((e) => e.dataset.notification),
      unread: document.querySelector('#unread').hidden ? 0 : Number(document.querySelector('#unread').textContent),
    }));
    const held = { items: items.items.map((i) => `${i.id} ${i.status} ${i.name}`), comments: comments.comments.map((c) => c.id), notifications: bell.notifications.map((n) => n.id), unread: bell.unread };
    // Unread ones come first on the page.
    held.notifications = [...bell.notifications.filter((n) => !n.read), ...bell.notifications.filter((n) => n.read)].map((n) => n.id);
    if (JSON.stringify(shown) !== JSON.stringify(held)) throw new Error(`shown ${JSON.stringify(shown).slice(0, 400)} held ${JSON.stringify(held).slice(0, 400)}`);
    return true;
  }, 12_000);
  const { holes, doubles } = await screen.audit();
  if (holes || doubles) throw new Error(`${editor}'s auditor counted ${holes} holes and ${doubles} doubles`);
}
