// The tour that README describes, played through; its pictures are README's (docs/screenshots, written with TOUR_PICTURES=1, else to tests/output).
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test, until, pause } from '../lib/harness.js';
import { redis, node } from '../lib/rig.js';
import { context, screen } from '../lib/browser.js';

const folder = fileURLToPath(new URL(process.env.TOUR_PICTURES ? '../../../docs/screenshots/' : '../../output/screenshots/', import.meta.url));
mkdirSync(folder, { recursive: true });

test('comment, item, notification, break, recover', async (t) => {
  const a = await node(t, 'node-a', { redis: await redis(t) });
  const page = await (await context(t, { viewport: { width: 1280, height: 760 }, colorScheme: 'light' })).newPage();
  const picture = async (name) => { await pause(250); await page.screenshot({ path: `${folder}${name}.png`, animations: 'disabled' }); };
  await page.goto(`${a.base}/demo/`);
  assert.equal(await page.getByRole('heading', { name: 'Carillon' }).count(), 1);
  await until('two panes', async () => page.frames().length === 3);
  const [anna, bilal] = ['anna', 'bilal'].map((id) => screen(page.frames().find((f) => f.url().includes(`editor=${id}`))));
  await anna.live('WebSocket');
  await bilal.live('WebSocket');
  await page.getByRole('button', { name: 'Tour' }).click();
  assert.equal(await page.getByText('Comment.', { exact: true }).isVisible(), true);
  await picture('demo');
  await page.getByRole('button', { name: 'Tour' }).click();

  await anna.comment('The headline is shorter than the coat now, @bilal.');
  await bilal.shows('The headline is shorter than the coat now, @bilal.');
  await until('his bell counts one', async () => (await bilal.unread()) === 1);
  await picture('demo-comment');

  await anna.page.getByRole('button', { name: 'Approve Autumn: landing page' }).click();
  await until('approved in his pane', async () => (await bilal.statusOf('Autumn: landing page')) === 'approved');
  await until('his bell counts two', async () => (await bilal.unread()) === 2);
  await bilal.page.locator('#bell').click();
  await until('the notifications are shown', async () => (await bilal.text('#notifications')).includes('Anna Lindqvist approved “Autumn: landing page”.'));
  await picture('demo-notifications');
  await bilal.page.locator('#bell').click();

  await bilal.page.locator('#break-button').click();
  await bilal.page.locator('#offline').check({ force: true });
  await bilal.becomes('stale');
  await anna.comment('Bilal does not see this yet.');
  await anna.shows('Bilal does not see this yet.');
  assert.equal((await bilal.comments()).some((c) => c.includes('does not see this yet')), false);
  await picture('demo-broken');

  await bilal.page.locator('#offline').uncheck({ force: true });
  await bilal.page.locator('#break-button').click();
  await bilal.live();
  await bilal.shows('Bilal does not see this yet.');
  await bilal.page.locator('#log-button').click();
  await until('the log tells the replay', async () => (await bilal.text('#messages')).includes('comment.created'));
  const { holes, doubles } = await bilal.audit();
  assert.deepEqual([holes, doubles], [0, 0]);
  await picture('demo-recovered');

  await bilal.page.locator('#break-button').click();
  await bilal.page.locator('#block-websocket').check({ force: true });
  await bilal.live('SSE', 6000);
  await picture('demo-sse');
});

test('dark, and on a phone', async (t) => {
  const a = await node(t, 'node-a', { redis: await redis(t) });
  const dark = await (await context(t, { viewport: { width: 1280, height: 760 }, colorScheme: 'dark' })).newPage();
  await dark.goto(`${a.base}/demo/?count=3`);
  await until('three panes are live', async () => {
    for (const f of dark.frames().slice(1)) if (!(await f.locator('#badge').innerText()).startsWith('Live')) return false;
    return dark.frames().length === 4;
  }, 15_000);
  await dark.screenshot({ path: `${folder}demo-dark.png`, animations: 'disabled' });
  const phone = await (await context(t, { viewport: { width: 390, height: 780 } })).newPage();
  await phone.goto(`${a.base}/demo/pane.html?editor=chiyo`);
  await screen(phone).live();
  assert.ok(await phone.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'nothing sticks out');
  await phone.screenshot({ path: `${folder}demo-phone.png`, animations: 'disabled' });
});
