// The page on the internal listener (GET /): what it draws is what happens; on a desk, in the dark, on a phone. Its pictures are those of docs/operations.md (docs/screenshots, written with TOUR_PICTURES=1, else to tests/output).
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import WebSocket from 'ws';
import { test, until } from '../lib/harness.js';
import { redis, node } from '../lib/rig.js';
import { context } from '../lib/browser.js';

const folder = fileURLToPath(new URL(process.env.TOUR_PICTURES ? '../../../docs/screenshots/' : '../../output/screenshots/', import.meta.url));
mkdirSync(folder, { recursive: true });

/** The page of a node, and whatever it asked for elsewhere or complained about. */
async function watching(t, at, options) {
  const page = await (await context(t, { viewport: { width: 1280, height: 900 }, ...options })).newPage();
  const foreign = [], broken = [];
  page.on('request', (request) => { if (new URL(request.url()).origin !== at.internal && !request.url().startsWith('data:')) foreign.push(request.url()); });
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) broken.push(message.text()); });
  page.on('pageerror', (error) => broken.push(error.message));
  await page.goto(`${at.internal}/`);
  return { page, foreign, broken, text: (selector) => page.locator(selector).innerText() };
}

/** Sessions of each transport on a node. */
async function sessions(t, at, counts) {
  const { token } = await at.api('token', { editor: 'anna', ttl: 600 });
  const query = 'topics=comments:42,projects';
  const over = new AbortController();
  const streams = [];     // kept, or they are closed when they are forgotten
  t.after(() => { over.abort(); streams.length = 0; });
  for (let n = 0; n < counts.websocket; n++) {
    const socket = new WebSocket(`${at.base.replace('http', 'ws')}/realtime`);
    await new Promise((open, no) => { socket.onopen = open; socket.onerror = no; });
    socket.send(JSON.stringify({ type: 'connect', token, topics: ['comments:42', 'projects'] }));
    t.after(() => socket.close());
  }
  for (let n = 0; n < counts.sse; n++) {
    const stream = await fetch(`${at.base}/realtime/events?${query}&token=${token}`, { signal: over.signal });
    assert.equal(stream.status, 200, await (stream.ok ? '' : stream.text()));
    streams.push(stream);
  }
  for (let n = 0; n < counts.poll; n++) {
    (async () => {
      let cursor = '';
      while (!over.signal.aborted) cursor = `&cursor=${(await (await fetch(`${at.base}/realtime/poll?topics=content:7&token=${token}${cursor}`, { signal: over.signal })).json()).cursor}`;
    })().catch(() => {});
  }
}

/** Publishes so many events a second until the test is over. */
function traffic(t, at, perSecond) {
  let n = 0;
  const timer = setInterval(() => {
    n++;
    const topic = n % 3 ? 'comments:42' : 'projects';
    at.publish(topic, { type: 'comment.created', data: { n } }, n % 4 === 0).catch(() => {});
  }, 1000 / perSecond);
  t.after(() => clearInterval(timer));
}

const figure = async (page, id) => Number((await page.locator(id).innerText()).replace(/[^\d.]/g, ''));

test('nodes, sessions, events, latency, resyncs and Redis are drawn as they are', async (t) => {
  const r = await redis(t);
  const [a, b] = await Promise.all([node(t, 'node-a', { redis: r, PROBE__SECONDS: 1 }), node(t, 'node-b', { redis: r, PROBE__SECONDS: 1 })]);
  await sessions(t, a, { websocket: 12, sse: 5, poll: 2 });
  await sessions(t, b, { websocket: 7, sse: 0, poll: 0 });
  const desk = await watching(t, a, { colorScheme: 'light' });
  const dark = await watching(t, a, { colorScheme: 'dark' });
  const phone = await watching(t, a, { viewport: { width: 390, height: 844 } });
  traffic(t, a, 40);
  const { page } = desk;
  await until('it says ready', async () => (await desk.text('#state')) === 'ready');
  await until('sessions by transport', async () => {
    const told = await desk.text('#legend-sessions');
    if (/websocket\s*12/.test(told) && /sse\s*5/.test(told)) return true;
    throw new Error(`it says ${told}`);
  });
  await until('both nodes', async () => (await page.locator('#nodes tbody tr').count()) === 2 && (await desk.text('#nodes')).includes('node-b'));
  await until('all sessions of both', async () => (await figure(page, '#all-sessions')) >= 24, 15_000);
  await until('events per second near 40', async () => Math.abs(await figure(page, '#events') - 40) < 15, 15_000);
  await until('deliveries per second: more than events', async () => (await figure(page, '#deliveries')) > 300, 15_000);
  await until('a latency', async () => /p99$/.test(await desk.text('#latency')) && /p50\s*\d/.test(await desk.text('#legend-latency')));
  assert.match(await desk.text('#redis'), /live/);
  assert.match(await desk.text('#legend-probe'), /probe\s*[\d.]+ (µs|ms)/);
  assert.match(await page.locator('#plot-events').getAttribute('aria-label'), /^Events per second: recorded [\d.]+, live [\d.]+$/);
  assert.equal(await figure(page, '#resyncs'), 0);
  await until('lines are drawn', async () => (await page.locator('#plot-latency path.line').count()) >= 3 && (await page.locator('#plot-sessions path.area').count()) >= 2, 15_000);
  const box = await page.locator('#plot-deliveries').boundingBox();
  await until('some looks', async () => (await page.locator('#plot-deliveries path.line').getAttribute('d')).split('L').length > 8, 30_000);
  await page.mouse.move(box.x + box.width - 62, box.y + 50);
  await until('the pointed moment is told', async () => /\d\d:\d\d:\d\d/.test(await desk.text('#plot-deliveries .time.to')));
  await page.mouse.move(0, 0);

  r.child.kill('SIGSTOP');
  await until('Redis is away, in the badge, the banner and the card', async () => (await desk.text('#redis')) === 'away' && (await desk.text('#state')) === 'not ready' && (await desk.text('#trouble')).includes('Redis'), 30_000);
  await until('the time without Redis is marked', async () => (await page.locator('#plot-probe rect.down').count()) > 0, 10_000);
  r.child.kill('SIGCONT');
  await until('live again, and what may have been missed is a resync with its reason', async () => {
    const [live, told, drawn] = [await desk.text('#redis'), await desk.text('#resyncs-note'), await page.locator('#plot-resyncs rect.area').count()];
    if (live === 'live' && /since the start: [a-z-]+ \d+/.test(told) && drawn > 0) return true;
    throw new Error(`Redis ${live}, ${told}, ${drawn} bars`);
  }, 30_000);
  assert.equal(await page.locator('#trouble').isVisible(), false);

  for (const [name, one] of [['watching', desk], ['watching-dark', dark], ['watching-phone', phone]]) {
    await until(`${name} has recovered`, async () => (await one.text('#state')) === 'ready');
    assert.ok(await one.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name}: nothing sticks out`);
    assert.deepEqual(one.foreign, [], 'nothing comes from elsewhere');
    await one.page.screenshot({ path: `${folder}${name}.png`, animations: 'disabled', fullPage: true });
  }
  assert.deepEqual(desk.broken, []);

  await a.stop();
  await until('a node that is gone says no more, and the page says so', async () => (await desk.text('#state')) === 'no answer' && (await desk.text('#trouble')).includes('does not answer'), 15_000);
});
