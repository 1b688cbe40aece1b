// Two browsers on two nodes with one Redis: what one editor does shows on the other's screen, area by area, without a refresh.
import assert from 'node:assert/strict';
import { test, until } from '../lib/harness.js';
import { redis, node, nginx } from '../lib/rig.js';
import { context, pane, picture, settled } from '../lib/browser.js';

/** Node A with the CMS; node B behind nginx, which sends /demo/api/ to A: one CMS, two nodes. */
async function two(t) {
  const r = await redis(t);
  const [a, b] = await Promise.all([node(t, 'node-a', { redis: r }), node(t, 'node-b', { redis: r })]);
  const front = await nginx(t, `
    location /demo/api/ { proxy_pass ${a.base}; proxy_set_header Host $http_host; }
    location / { proxy_pass ${b.base}; proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade; }`);
  const anna = await pane(await context(t), a.base, 'anna');
  const bilal = await pane(await context(t), front.base, 'bilal');
  await anna.live('WebSocket');
  await bilal.live('WebSocket');
  assert.match(await anna.badge.getAttribute('title'), /node-a/);
  assert.match(await bilal.badge.getAttribute('title'), /node-b/);
  await bilal.page.evaluate(() => { window.loadedOnce = true; });
  return { a, b, r, anna, bilal };
}

test('comments, items, projects, content and the bell, from node to node', async (t) => {
  const { a, anna, bilal } = await two(t);
  await anna.comment('Shorter than the coat now, @bilal.');
  await bilal.shows('Shorter than the coat now, @bilal.');
  assert.match((await bilal.comments())[0], /^AL\s+Anna Lindqvist/);
  await picture(anna.page, 'two-nodes-anna');
  await picture(bilal.page, 'two-nodes-bilal');
  await until('the bell counts one', async () => (await bilal.unread()) === 1);
  await until('the notification is read out', async () => (await bilal.text('#announcer')).includes('Anna Lindqvist mentioned you'));
  assert.equal(await bilal.page.getByRole('button', { name: 'Notifications, 1 unread' }).count(), 1);

  await anna.page.getByRole('button', { name: 'Approve Autumn: landing page' }).click();
  await until('the item is approved there', async () => (await bilal.statusOf('Autumn: landing page')) === 'approved');
  await bilal.shows('approved “Autumn: landing page”');
  await until('the bell counts two', async () => (await bilal.unread()) === 2);
  await anna.page.getByLabel('Move Newsletter, week 48 to').selectOption('in_review');
  await until('the item is in review there', async () => (await bilal.statusOf('Newsletter, week 48')) === 'in_review');

  await anna.page.getByLabel('Status of the project').selectOption('on_hold');
  await until('the project is on hold there', async () => (await bilal.page.locator('.project', { hasText: 'Autumn campaign' }).innerText()).includes('On hold'));

  await bilal.page.getByRole('button', { name: 'Coat finder', exact: true }).click();
  await until('the content is open', async () => (await bilal.page.getByLabel('Title').inputValue()) === 'Coat finder');
  await anna.page.getByRole('button', { name: 'Coat finder', exact: true }).click();
  await until('the content is open', async () => (await anna.page.getByLabel('Title').inputValue()) === 'Coat finder');
  await bilal.page.getByLabel('Title').fill('Coat finder, mine');
  await anna.page.getByLabel('Title').fill('The coat finder');
  await anna.page.getByRole('button', { name: 'Save' }).click();
  await until('the other is told', async () => (await bilal.page.locator('#detail-notice').innerText()).includes('Anna Lindqvist saved version 6 while you had this open.'));
  assert.equal(await bilal.page.getByLabel('Title').inputValue(), 'Coat finder, mine', 'what is being typed is not touched');
  await picture(bilal.page, 'two-nodes-conflict');
  await bilal.page.getByRole('button', { name: 'Load it' }).click();
  await until('it is loaded', async () => (await bilal.page.getByLabel('Title').inputValue()) === 'The coat finder');
  await bilal.page.keyboard.press('Escape');

  await bilal.page.locator('#bell').click();
  await bilal.page.getByRole('button', { name: 'Mark all read' }).click();
  await until('the bell is empty', async () => (await bilal.unread()) === 0);
  await bilal.page.locator('#notify-text').fill('Thank you!');
  await bilal.page.getByRole('button', { name: 'Send' }).click();
  await until("Anna's bell counts two", async () => (await anna.unread()) === 2);

  await settled(anna, a, 'anna');
  await settled(bilal, a, 'bilal');
  await picture(bilal.page, 'two-nodes-settled');
  assert.equal(await bilal.page.evaluate(() => window.loadedOnce), true, 'no page was loaded again');
  assert.ok((await bilal.audit()).events >= 6);
  assert.deepEqual([...anna.broken, ...bilal.broken], []);
});

test('a notification is nobody else’s, and the own echo does not come back', async (t) => {
  const { a, anna, bilal } = await two(t);
  const chiyo = await pane(await context(t), a.base, 'chiyo');
  await chiyo.live('WebSocket');
  await anna.page.locator('#bell').click();
  await anna.page.locator('#notify-to').selectOption('bilal');
  await anna.page.locator('#notify-text').fill('Between us.');
  await anna.page.getByRole('button', { name: 'Send' }).click();
  await until('it is there', async () => (await bilal.unread()) === 1);
  await anna.page.keyboard.press('Escape');
  await anna.comment('Marker');
  await chiyo.shows('Marker');
  assert.equal(await chiyo.unread(), 0);
  assert.doesNotMatch(await chiyo.page.content(), /Between us/);
  assert.doesNotMatch(await chiyo.page.locator('#messages').innerText().catch(() => ''), /notifications:bilal/);
});

test('the keyboard is enough, and the frame shows three editors', async (t) => {
  const { a } = await two(t);
  const page = await (await context(t, { viewport: { width: 1500, height: 900 } })).newPage();
  await page.goto(`${a.base}/demo/`);
  await page.getByRole('radio', { name: '3 editors' }).check({ force: true });
  await until('three panes', async () => (await page.locator('iframe').count()) === 3);
  const third = page.frameLocator('iframe').nth(2);
  await until('the third is live', async () => (await third.locator('#badge').innerText()).startsWith('Live'));
  const one = page.frameLocator('iframe').nth(0);
  await one.getByLabel('Your comment').focus();
  await page.keyboard.type('By keyboard only');
  await page.keyboard.press('Control+Enter');
  await until('the third shows it', async () => (await third.locator('#comments').innerText()).includes('By keyboard only'));
  await one.locator('#log-button').focus();
  await page.keyboard.press('Enter');
  await until('the log is open', async () => (await one.locator('#log').isVisible()) && (await one.locator('#messages').innerText()).includes('welcome'));
});
