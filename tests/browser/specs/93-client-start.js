// Pages that a server renders: what they bring along, what survives a navigation, and the script under its hash.
import assert from 'node:assert/strict';
import http from 'node:http';
import { test, until, pause } from '../lib/harness.js';
import { node, SECRET } from '../lib/rig.js';
import { context } from '../lib/browser.js';
import { arrives, becomes, front, join, mint, noted, visit } from '../lib/front.js';

/** What a CMS' server reads before the page's data. */
const positionsOf = async (a, topics) => (await fetch(`${a.internal}/positions?topics=${topics}`, { headers: { authorization: `Bearer ${SECRET}` } })).json();
const configOf = async (a) => (await fetch(`${a.base}/realtime/config`)).json();
const start = async (a, topics = ['comments:42']) => ({ config: await configOf(a), token: mint('anna'), ...await positionsOf(a, topics) });

for (const shared of [true, false]) {
  for (const transports of [['websocket'], ['sse']]) {
    test(`a rendered page (${transports}${shared ? '' : ', not shared'}): what changed since comes as events, nothing is read twice, nothing but the connection is asked for`, async (t) => {
      const a = await node(t, 'a'), site = await front(t, a);
      await a.publish('comments:42', { type: 'comment.created', data: { n: 1 } });
      const brought = await start(a);
      await a.publish('comments:42', { type: 'comment.created', data: { n: 2 } });
      await a.publish('comments', { type: 'comment.created', data: { n: 3 } });
      const page = await visit(t, site);
      await join(page, { start: brought, transports, shared });
      await becomes(page, 'live');
      await until('what changed since', async () => (await noted(page)).events.length === 2);
      await arrives(page, a);
      const { events, resyncs, tokens } = await noted(page);
      assert.deepEqual(events.slice(0, 2).map((e) => [e.n, e.replayed]).sort(), [[2, true], [3, true]]);
      assert.deepEqual([resyncs, tokens], [[], []]);
      assert.deepEqual(site.asked().map((r) => `${r.method} ${r.path}`), [transports[0] === 'sse' ? 'POST /realtime/events' : 'UPGRADE /realtime']);
    });
  }
}

test('a topic that the page did not bring is read once it is followed; one whose log is gone is read again', async (t) => {
  const a = await node(t, 'a'), site = await front(t, a);
  const brought = await start(a);
  brought.positions['comments:7'] = 'nonsense.1-1';
  const page = await visit(t, site);
  await join(page, { start: brought }, ['comments:42', 'comments:43', 'comments:7']);
  await becomes(page, 'live');
  await until('both are read', async () => (await noted(page)).resyncs.length === 2);
  assert.deepEqual((await noted(page)).resyncs.map((r) => r.topic).sort(), ['comments:43', 'comments:7']);
  await arrives(page, a, 'comments:7');
});

test('three page views: one worker, one session, one token; the tab keeps its part of the id', async (t) => {
  const a = await node(t, 'a'), site = await front(t, a);
  const ctx = await context(t);
  const page = await visit(t, site, { ctx });
  const ids = [], welcomed = async () => Number((await (await fetch(`${a.internal}/metrics`)).text()).match(/^carillon_(?:sessions_)?welcomed(?:_sessions)?_total\{[^}]*websocket[^}]*\} (\d+)/m)?.[1] ?? -1);
  for (let view = 1; view <= 3; view++) {
    if (view > 1) await page.goto(`${site.origin}/page?${view}`);
    await join(page, { user: 'anna', start: { config: await configOf(a) } });
    await becomes(page, 'live');
    ids.push(await page.evaluate(() => rt.id));
    await arrives(page, a);
  }
  const tabs = new Set(ids.map((id) => id.split('.')[0])), views = new Set(ids.map((id) => id.split('.')[1]));
  assert.deepEqual([tabs.size, views.size], [1, 3], ids.join(' '));
  assert.equal(site.tokens, 1, 'the token is kept');
  assert.equal(site.asked().filter((r) => r.method === 'UPGRADE').length, 1, 'one connection for three views');
  assert.equal((await a.sessions()).total, 1);
  assert.ok(await welcomed() <= 1);
  // A second tab, opened from the first: told apart although it copies the storage.
  const [other] = await Promise.all([ctx.waitForEvent('page'), page.evaluate(() => { window.open('/page?copy'); })]);
  await other.waitForLoadState();
  await join(other, { user: 'anna' });
  await becomes(other, 'live');
  assert.ok(!tabs.has((await other.evaluate(() => rt.id)).split('.')[0]));
  await other.close();
  await page.close();
  await until('the session ends when nobody comes back', async () => (await a.sessions()).total === 0, 25_000);
});

test('the echo: only of this very view; what the view before it began shows', async (t) => {
  const a = await node(t, 'a'), site = await front(t, a);
  const page = await visit(t, site);
  await join(page);
  await becomes(page, 'live');
  const id = await page.evaluate(() => rt.id);
  await page.goto(`${site.origin}/page?2`);
  await join(page);
  await becomes(page, 'live');
  await until('followed', async () => (await noted(page)).resyncs.length === 1);
  await a.publish('comments:42', { type: 'comment.created', origin: await page.evaluate(() => rt.id), data: { n: 1 } });
  await a.publish('comments:42', { type: 'comment.created', origin: id, data: { n: 2 } });
  await a.publish('comments:42', { type: 'comment.created', origin: id.split('.')[0], data: { n: 3 } });
  await until('both', async () => (await noted(page)).events.length >= 2);
  assert.deepEqual((await noted(page)).events.map((e) => e.n), [2, 3]);
});

test('realtime.js under its hash: kept for good, with an integrity; the hash of another build is 404, and the loader takes the other address', async (t) => {
  const a = await node(t, 'a'), site = await front(t, a);
  const { script, integrity } = await configOf(a);
  const answer = await fetch(a.base + script);
  assert.equal(answer.status, 200);
  assert.match(answer.headers.get('cache-control'), /immutable/);
  const page = await visit(t, site);
  const load = (script, integrity) => page.evaluate(async ([script, integrity]) => {
    const link = Object.assign(document.createElement('link'), { rel: 'modulepreload', href: script, integrity });
    document.head.append(link);
    const loaded = await new Promise((go) => { link.onload = () => go(true); link.onerror = () => go(false); });
    const { Realtime } = await import(script).catch(() => import('/realtime/realtime.js'));
    return [loaded, typeof Realtime];
  }, [script, integrity]);
  assert.deepEqual(await load(script, integrity), [true, 'function']);
  // A rolling deploy: the page is of the next build, the node that is asked is of this one.
  const older = script.replace(/\.[0-9a-f]+\.js$/, '.0123456789abcdef.js');
  const gone = await fetch(a.base + older);
  assert.deepEqual([gone.status, gone.headers.get('cache-control')], [404, 'no-store']);
  assert.deepEqual(await load(older, integrity), [false, 'function']);
  assert.equal((await fetch(`${a.base}/realtime/realtime.js.map`)).headers.get('content-type'), 'application/json');
});

test('the module from a CDN: the worker is the node’s, where that is on the page’s origin; from elsewhere each tab connects by itself', async (t) => {
  const a = await node(t, 'a'), site = await front(t, a);
  const cdn = http.createServer(async (req, res) => {
    const source = await (await fetch(`${a.base}/realtime/realtime.js`)).text();
    res.writeHead(200, { 'content-type': 'text/javascript', 'access-control-allow-origin': '*' }).end(source);
  }).listen(0, '127.0.0.1');
  t.after(() => { cdn.close(); cdn.closeAllConnections(); });
  await until('the CDN listens', () => cdn.listening);
  const ctx = await context(t);
  const open = async () => {
    const page = await visit(t, site, { ctx });
    await page.evaluate(async (from) => {
      const { Realtime } = await import(from);
      window.noted = { events: [] };
      window.rt = new Realtime({ token: async () => (await fetch('/token')).text() });
      window.rt.on('comments:42', (e) => window.noted.events.push({ n: e.data.n }));
    }, `http://127.0.0.1:${cdn.address().port}/x/carillon.js`);
    await becomes(page, 'live');
    return page;
  };
  const first = await open(), second = await open();
  await arrives(first, a);
  await arrives(second, a);
  assert.equal((await a.sessions()).total, 1);
  await pause(100);
  assert.deepEqual([...first.broken, ...second.broken], []);
});
