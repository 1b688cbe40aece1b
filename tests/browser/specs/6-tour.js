// The tour that README describes, played on `carillon dev`; its pictures are README's (docs/screenshots, written with TOUR_PICTURES=1, else to tests/output).
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import axe from 'axe-core';
import { test, until, pause } from '../lib/harness.js';
import { dev } from '../lib/rig.js';
import { context, picture, screen } from '../lib/browser.js';

const folder = process.env.TOUR_PICTURES ? fileURLToPath(new URL('../../../docs/screenshots/', import.meta.url)) : undefined;

test('comment, item, notification, break, recover', async (t) => {
  const { link } = await dev(t);
  const page = await (await context(t, { viewport: { width: 1400, height: 860 }, colorScheme: 'light' })).newPage();
  const quiet = () => until('no toast is in the way', async () => (await anna.page.locator('.toast').count()) + (await bilal.page.locator('.toast').count()) === 0);
  const shot = async (name) => { await pause(250); await picture(page, name, folder); };
  await page.goto(link);
  assert.equal(await page.getByRole('heading', { name: 'Carillon' }).count(), 1);
  await until('two panes', async () => page.frames().length === 3);
  const [anna, bilal] = ['anna', 'bilal'].map((id) => screen(page.frames().find((f) => f.url().includes(`editor=${id}`))));
  await anna.live('WebSocket');
  await bilal.live('WebSocket');
  await page.getByRole('button', { name: 'Tour' }).click();
  assert.equal(await page.getByText('Comment.', { exact: true }).isVisible(), true);
  await shot('demo');
  await page.getByRole('button', { name: 'Tour' }).click();

  await anna.comment('The headline is shorter than the coat now, @bilal.');
  await bilal.shows('The headline is shorter than the coat now, @bilal.');
  await until('his bell counts one', async () => (await bilal.unread()) === 1);
  await shot('demo-comment');

  await anna.page.getByRole('button', { name: 'Approve Autumn: landing page' }).click();
  await until('approved in his pane', async () => (await bilal.statusOf('Autumn: landing page')) === 'approved');
  await until('his bell counts two', async () => (await bilal.unread()) === 2);
  await bilal.page.locator('#bell').click();
  await until('the notifications are shown', async () => (await bilal.text('#notifications')).includes('Anna Lindqvist approved “Autumn: landing page”.'));
  await shot('demo-notifications');
  await bilal.page.locator('#bell').click();

  await bilal.page.locator('#break-button').click();
  await bilal.page.locator('#offline').check({ force: true });
  await bilal.becomes('stale');
  await anna.comment('Bilal does not see this yet.');
  await anna.shows('Bilal does not see this yet.');
  assert.equal((await bilal.comments()).some((c) => c.includes('does not see this yet')), false);
  await quiet();
  await shot('demo-broken');

  await bilal.page.locator('#offline').uncheck({ force: true });
  await bilal.page.locator('#break-button').click();
  await bilal.live();
  await bilal.shows('Bilal does not see this yet.');
  await bilal.page.locator('#log-button').click();
  await until('the log tells the replay', async () => (await bilal.text('#messages')).includes('comment.created'));
  const { holes, doubles } = await bilal.audit();
  assert.deepEqual([holes, doubles], [0, 0]);
  await quiet();
  await shot('demo-recovered');

  await bilal.page.locator('#break-button').click();
  await bilal.page.locator('#block-websocket').check({ force: true });
  await bilal.live('SSE', 20_000);
  await shot('demo-sse');
});

test('dark, and on a phone', async (t) => {
  const { link } = await dev(t);
  const dark = await (await context(t, { viewport: { width: 1280, height: 760 }, colorScheme: 'dark' })).newPage();
  await dark.goto(`${link}?count=3`);
  await until('three panes are live', async () => {
    for (const f of dark.frames().slice(1)) if (!(await f.locator('#badge').innerText()).startsWith('Live')) return false;
    return dark.frames().length === 4;
  }, 15_000);
  await picture(dark, 'demo-dark', folder);
  const phone = await (await context(t, { viewport: { width: 390, height: 780 } })).newPage();
  await phone.goto(`${link}pane.html?editor=chiyo`);
  await screen(phone).live();
  assert.ok(await phone.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'nothing sticks out');
  await picture(phone, 'demo-phone', folder);
});

for (const colorScheme of ['light', 'dark']) {
  test(`accessible in ${colorScheme}: contrast, names, roles, as axe-core sees them`, async (t) => {
    const { link } = await dev(t);
    const page = await (await context(t, { viewport: { width: 1180, height: 900 }, colorScheme, reducedMotion: 'reduce' })).newPage();
    const check = async (what) => {
      await page.evaluate(axe.source);
      const { violations, passes } = await page.evaluate(() => window.axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'], iframes: false }).then(({ violations, passes }) => ({ violations, passes: passes.map((p) => p.id) })));
      assert.ok(passes.includes('color-contrast') && passes.length > 10, 'it has looked');
      assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => `${n.target} ${n.failureSummary}`).join('; ')}`), [], what);
    };
    await page.goto(`${link}pane.html?editor=anna`);
    const anna = screen(page);
    await anna.live();
    await check('live');
    await page.locator('#bell').click();
    await check('the bell');
    await page.keyboard.press('Escape');
    await page.locator('#break-button').click();
    await page.locator('#offline').check({ force: true });
    await anna.becomes('stale');
    await check('stale, and the switches');
    await page.locator('#offline').uncheck({ force: true });
    await page.keyboard.press('Escape');
    await anna.live();
    await page.locator('#log-button').click();
    await page.getByRole('button', { name: 'Coat finder', exact: true }).click();
    await until('the content', async () => (await page.getByLabel('Title').inputValue()) === 'Coat finder');
    await check('the log, and the content');
    await page.goto(link);
    await page.getByRole('button', { name: 'Tour' }).click();
    await check('the frame');
  });
}

test('README shows these pictures, and tells these steps', () => {
  const readme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8');
  const shown = [...readme.matchAll(/!\[[^\]]+\]\(docs\/screenshots\/([\w-]+)\.png\)/g)].map(([, name]) => name);
  assert.ok(shown.length >= 3);
  const source = readFileSync(new URL(import.meta.url), 'utf8');
  for (const name of shown) {
    assert.ok(source.includes(`'${name}'`), `${name} is taken by the tour`);
    assert.ok(readFileSync(new URL(`../../../docs/screenshots/${name}.png`, import.meta.url)).length > 10_000);
  }
});
