// The page on the internal listener (GET /): what it draws is what happens; on a desk, in the dark, on a phone. Its pictures are those of docs/operations.md (docs/screenshots, written with TOUR_PICTURES=1, else to tests/output).
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import axe from 'axe-core';
import WebSocket from 'ws';
import { test, until } from '../lib/harness.js';
import { dev, node, redis } from '../lib/rig.js';
import { context } from '../lib/browser.js';

const folder = fileURLToPath(new URL(process.env.TOUR_PICTURES ? '../../../docs/screenshots/' : '../../output/screenshots/', import.meta.url));
mkdirSync(folder, { recursive: true });

/** The page of a node, and whatever it asked for elsewhere or complained about. */
async function watching(t, at, options) {
  const page = await (await context(t, { viewport: { width: 1280, height: 800 }, ...options })).newPage();
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
const LOOKS = { watching: {}, 'watching-dark': { colorScheme: 'dark' }, 'watching-phone': { viewport: { width: 390, height: 844 } }, 'watching-phone-dark': { viewport: { width: 390, height: 844 }, colorScheme: 'dark' } };

/** Who is refused: a topic that the token does not allow, and a token that is none. */
async function refusals(at) {
  const { token } = await at.api('token', { editor: 'anna', ttl: 600 });
  const poll = (topics, token) => fetch(`${at.base}/realtime/poll?topics=${topics}&token=${token}`);
  assert.equal((await poll('notifications:bilal', token)).status, 200, 'welcomed, but refused the topic');
  assert.equal((await poll('projects', 'nonsense')).status, 401);
}

test('the page opens with what the node remembers; what went wrong stands over all plots', async (t) => {
  const r = await redis(t);
  const [a, b] = await Promise.all([node(t, 'node-a', { redis: r, PROBE__SECONDS: 1 }), node(t, 'node-b', { redis: r, PROBE__SECONDS: 1 })]);
  await sessions(t, a, { websocket: 12, sse: 5, poll: 2 });
  await sessions(t, b, { websocket: 7, sse: 0, poll: 0 });
  traffic(t, a, 40);
  const history = async () => (await fetch(`${a.internal}/history`)).json();
  await until('a full bucket with traffic', async () => (await history()).buckets.filter((b) => b.deliveries > 0).length >= 3, 60_000);
  await refusals(a);
  r.child.kill('SIGSTOP');
  await until('Redis is away', async () => !(await a.status()).this.redis.live, 30_000);
  r.child.kill('SIGCONT');
  await until('Redis is back, and resyncs were told', async () => { const { redis, resyncs } = (await a.status()).this; return redis.live && Object.values(resyncs).some((n) => n > 0); }, 30_000);

  // Only now does anybody look.
  const pages = {};
  for (const [name, options] of Object.entries(LOOKS)) pages[name] = await watching(t, a, options);
  const desk = pages.watching, { page } = desk;
  await until('it says ready', async () => (await desk.text('#state')) === 'ready');
  await until('what was before is drawn', async () => (await page.locator('#plot-deliveries path.line').first().getAttribute('d')).split('L').length >= 3);
  assert.match(await desk.text('#troubles'), /\d\d:\d\d:\d\d Redis out of sight/);
  assert.match(await desk.text('#troubles'), /\d\d:\d\d:\d\d \d+ resyncs: [a-z-]+ \d+/);
  assert.match(await desk.text('#troubles'), /refused .*forbidden 1/);
  for (const kind of ['link', 'resyncs', 'refused']) assert.ok(await page.locator(`#marks rect.${kind}`).count() > 0, `a mark: ${kind}`);
  assert.match(await page.locator('#marks').getAttribute('aria-label'), /^\d+ troubles in this time$/);
  assert.ok(await page.locator('#plot-probe rect.down').count() > 0, 'the time without Redis is marked');
  assert.ok(await page.locator('#plot-resyncs rect.area').count() > 0);
  assert.match(await desk.text('#refusals'), /forbidden\s+1\s+last at \d\d:\d\d:\d\d/);
  assert.match(await desk.text('#refusals'), /unauthenticated\s+1/);
  assert.match(await desk.text('#busiest-topics'), /comments:42\s+\d+\s+projects\s+\d+/);
  assert.match(await desk.text('#busiest-areas'), /comments\s+\d+\s+projects\s+\d+/);
  assert.match(await desk.text('#remembered'), /^The node remembers since \d\d:\d\d:\d\d, when it started\.$/);

  await until('sessions by transport', async () => /poll\s*\d.*sse\s*5.*websocket\s*12/s.test(await desk.text('#legend-sessions')));
  await until('both nodes', async () => (await page.locator('#nodes tbody tr').count()) === 2 && (await desk.text('#nodes')).includes('node-b'));
  await until('all sessions of both', async () => (await figure(page, '#all-sessions')) >= 24, 15_000);
  await until('events per second near 40', async () => Math.abs(await figure(page, '#events') - 40) < 20, 30_000);
  await until('deliveries per second: more than events', async () => (await figure(page, '#deliveries')) > 300, 30_000);
  assert.match(await desk.text('#latency'), / p99$/);
  assert.match(await desk.text('#legend-latency'), /p50\s*\d/);
  assert.equal(await desk.text('#redis'), 'live');
  assert.match(await desk.text('#legend-probe'), /probe\s*[\d.]+ (µs|ms)/);
  assert.match(await page.locator('#plot-events').getAttribute('aria-label'), /^Events: recorded [\d.]+\/s, live [\d.]+\/s$/);
  assert.match(await desk.text('#plot-events'), /\d\/s/, 'units on the axis');
  await until('bands are drawn', async () => (await page.locator('#plot-sessions path.area').count()) === 3);

  // Ten minutes: what is pointed at in one plot is told by all, with one clock.
  await page.getByText('last 10 minutes').click();
  await until('drawn over the whole width', async () => /^M[2-9]\d\.|^M\d\d\./.test(await page.locator('#plot-deliveries path.line').first().getAttribute('d')));
  const box = await page.locator('#plot-deliveries svg').boundingBox();
  await page.mouse.move(box.x + box.width - 12, box.y + 40);
  await until('the pointed moment is told by all', async () => {
    const told = await page.locator('.time.to').allInnerTexts();
    return told.length === 6 && told.every((text) => text === told[0] && /^\d\d:\d\d:\d\d$/.test(text));
  });
  await page.mouse.move(0, 0);
  assert.doesNotMatch(await page.locator('body').innerText(), /\b[AP]M\b/, 'one clock format');

  for (const [name, one] of Object.entries(pages)) {
    await until(`${name} has recovered`, async () => (await one.text('#state')) === 'ready');
    assert.ok(await one.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name}: nothing sticks out`);
    assert.deepEqual(one.foreign, [], 'nothing comes from elsewhere');
    await accessible(one.page, name);
    await one.page.getByText('last 10 minutes').click();
    await one.page.mouse.move(0, 0);
    await one.page.screenshot({ path: `${folder}${name}.png`, animations: 'disabled' });
    if (name === 'watching') await one.page.screenshot({ path: `${folder}${name}-whole.png`, animations: 'disabled', fullPage: true });
    assert.deepEqual(one.broken, []);
  }

  const places = () => page.evaluate(() => ['.totals', '#range', '#marks', '#plot-sessions', '#plot-resyncs'].map((s) => { const { x, y, width, height } = document.querySelector(s).getBoundingClientRect(); return [s, x, y + scrollY, width, height].join(' '); }));
  const before = await places();
  r.child.kill('SIGSTOP');
  await until('Redis is away, in the badge, the banner and the card', async () => (await desk.text('#redis')) === 'away' && (await desk.text('#state')) === 'not ready' && (await desk.text('#trouble')).includes('Redis'), 30_000);
  assert.deepEqual(await places(), before, 'nothing moves when the state does');
  r.child.kill('SIGCONT');
  await until('live again', async () => (await desk.text('#redis')) === 'live' && (await desk.text('#state')) === 'ready', 30_000);
  await a.stop();
  await until('a node that is gone says no more, and the page says so', async () => (await desk.text('#state')) === 'no answer' && (await desk.text('#trouble')).includes('does not answer'), 15_000);
  assert.deepEqual(await places(), before, 'nothing moves when the state does');
});

/** What axe-core finds wrong: nothing. */
async function accessible(page, what) {
  await page.evaluate(axe.source);
  const { violations, passes } = await page.evaluate(() => window.axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'] }).then(({ violations, passes }) => ({ violations, passes: passes.length })));
  assert.ok(passes > 10, 'it has looked');
  assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => `${n.target} ${n.failureSummary}`).join('; ')}`), [], what);
}

test('a node without Redis: memory, no latency where nothing was delivered, and “live 0” paints nothing over', async (t) => {
  const a = await node(t, 'alone');
  const { page, text, broken } = await watching(t, a, {});
  await until('it says ready', async () => (await text('#state')) === 'ready');
  assert.equal(await text('#redis'), 'memory');
  assert.match(await text('#redis-note'), /no Redis/);
  assert.match(await text('#nodes'), /none/);
  assert.equal(await text('#latency'), 'quiet');
  assert.equal(await page.locator('#plot-latency path.line').count(), 0);
  assert.equal(await text('#plot-events .empty'), 'no events in this time');
  assert.equal(await text('#troubles'), 'Nothing went wrong in this time.');
  assert.equal(await page.locator('#marks rect').count(), 0);
  // Followed a moment ago: events still arrive, and are delivered to nobody.
  const { token } = await a.api('token', { editor: 'anna', ttl: 600 });
  const socket = new WebSocket(`${a.base.replace('http', 'ws')}/realtime`);
  await new Promise((open, no) => { socket.onopen = open; socket.onerror = no; });
  socket.send(JSON.stringify({ type: 'connect', token, topics: ['comments:1', 'notifications:anna'] }));
  await new Promise((welcomed) => { socket.onmessage = welcomed; });
  socket.close();
  await until('the session is gone', async () => (await a.sessions()).total === 0);
  await a.publish('comments:1', { type: 'comment.created' });
  await a.publish('notifications:anna', { type: 'notification.created' });
  await until('the event is drawn', async () => (await page.locator('#plot-events path.area').count()) === 1);
  assert.equal(await page.locator('#plot-events path.s1').count(), 0, 'live has no line: there was none');
  assert.match(await text('#legend-events'), /recorded.*live\s*0/s);
  assert.equal(await text('#latency'), 'quiet', 'nothing was delivered');
  assert.match(await text('#busiest-topics'), /comments:1/);
  assert.match(await text('#busiest-topics'), /notifications:…/);
  assert.doesNotMatch(await page.content(), /anna/, 'whose notification it was is nobody’s business');
  await sessions(t, a, { websocket: 1, sse: 0, poll: 0 });
  await until('it follows', async () => (await a.status()).this.topics > 0);
  await until('a latency', async () => { await a.publish('comments:42', { type: 'comment.created' }); return / p99$/.test(await text('#latency')); }, 15_000);
  await accessible(page, 'alone');
  assert.deepEqual(broken, []);
});

test('`carillon dev` names the page', async (t) => {
  const { log } = await dev(t);
  const [, link] = readFileSync(log, 'utf8').match(/Watch the node +(http:\S+)/);
  assert.match(await (await fetch(link)).text(), /<title>Carillon<\/title>/);
});
