// Firefox as Debian ships it, driven by WebDriver BiDi: the demo is live, one connection for two tabs, and a comment comes across.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test, until } from '../lib/harness.js';
import { redis, node } from '../lib/rig.js';

test('Firefox: live, two tabs share, a comment comes across, SSE where WebSocket is blocked', async (t) => {
  const path = process.env.FIREFOX ?? '/usr/bin/firefox-esr';
  if (!existsSync(path)) throw new Error('firefox-esr is not installed: tests/browser/run installs it');
  const { default: puppeteer } = await import('puppeteer-core');
  const firefox = await puppeteer.launch({ browser: 'firefox', executablePath: path, headless: true });
  t.after(() => firefox.close());
  const a = await node(t, 'a', { redis: await redis(t) });
  const open = async () => {
    const page = await firefox.newPage();
    await page.goto(`${a.base}/demo/pane.html?editor=anna`);
    return page;
  };
  const badge = (page) => page.$eval('#badge', (b) => `${b.innerText.trim()} · ${b.dataset.transport}`);
  const first = await open();
  await until('live', async () => (await badge(first)) === 'Live · WebSocket', 15_000);
  const second = await open();
  await until('live', async () => (await badge(second)) === 'Live · WebSocket', 15_000);
  assert.equal((await a.sessions()).total, 1, 'one connection for both tabs');
  await a.api('projects/42/comments', { editor: 'bilal', text: 'Hello, Firefox' });
  for (const page of [first, second]) await until('the comment', async () => (await page.$eval('#comments', (c) => c.textContent)).includes('Hello, Firefox'));
  await second.$eval('#block-websocket', (box) => box.click());
  await until('SSE', async () => (await badge(second)) === 'Live · SSE', 8000);
  await a.api('projects/42/comments', { editor: 'bilal', text: 'By SSE, too' });
  await until('the comment', async () => (await first.$eval('#comments', (c) => c.textContent)).includes('By SSE, too'));
});
