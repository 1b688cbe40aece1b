// The client's life in a page: begun and closed at any moment, workers that are slow, one tab's state is no other's.
import assert from 'node:assert/strict';
import { test, until, pause } from '../lib/harness.js';
import { redis, node } from '../lib/rig.js';
import { context } from '../lib/browser.js';
import { arrives, becomes, front, join, noted, status, visit } from '../lib/front.js';

const plain = async (t, options) => { const a = await node(t, 'a'); return { a, site: await front(t, a, options) }; };
const sessions = async (a) => (await a.sessions()).total;

for (const [what, path] of [['the config is read', '/realtime/config'], ['the token is fetched', '/token'], ['the script of the worker is loaded', '/realtime/realtime.js']]) {
  for (const shared of [true, false]) {
    if (!shared && path.endsWith('.js')) continue;
    test(`closed while ${what}${shared ? '' : ', not shared'}: no session, then or later`, async (t) => {
      const { a, site } = await plain(t);
      const page = await visit(t, site);
      let held = 0, release;
      const gate = new Promise((go) => { release = go; });
      await page.evaluate(() => import('/realtime/realtime.js'));
      site.hook = async (req, res, url) => { if (url.pathname === path) { held++; await gate; } return false; };
      await join(page, { shared });
      await until('it waits', () => held > 0);
      await page.evaluate(() => rt.close());
      release();
      await pause(1500);
      assert.equal(await sessions(a), 0);
      assert.equal((await status(page)).reason, 'closed');
      const fresh = await visit(t, site, { ctx: page.context() });    // the same worker serves the next page
      site.hook = null;
      await join(fresh, { shared });
      await becomes(fresh, 'live');
      assert.equal(await sessions(a), 1);
    });
  }
}

test('a worker that wakes up after the page went on alone: one session, none after close()', async (t) => {
  const { a, site } = await plain(t);
  site.hook = async (req) => { if (req.headers['sec-fetch-dest'] === 'sharedworker') await pause(9500); return false; };
  const page = await visit(t, site);
  await join(page);
  await becomes(page, 'live');
  await pause(3000);
  assert.equal(await sessions(a), 1);
  await page.evaluate(() => rt.close());
  await until('no session', async () => (await sessions(a)) === 0);
});

test('a hundred instances, one after the other: none that is closed stays, nor its lock', async (t) => {
  const { a, site } = await plain(t);
  const page = await visit(t, site);
  await join(page);
  await becomes(page, 'live');
  const left = await page.evaluate(async () => {
    const { Realtime } = await import('/realtime/realtime.js');
    const token = await (await fetch('/token')).text();
    window.refs = [];
    for (let n = 0; n < 100; n++) { const one = new Realtime({ token }); if (n % 3) await one.ready(); one.close(); window.refs.push(new WeakRef(one)); }
    await new Promise((go) => setTimeout(go, 500));
    return (await navigator.locks.query()).pending.length;
  });
  assert.ok(left <= 1, `${left} locks are waited for`);
  const devtools = await page.context().newCDPSession(page);
  await until('what is closed is collected', async () => {
    await devtools.send('HeapProfiler.collectGarbage');
    const kept = await page.evaluate(() => window.refs.filter((ref) => ref.deref()).length);
    if (kept > 3) throw new Error(`${kept} of 100 are kept`);
    return true;
  });
  assert.equal(await sessions(a), 1);
  await arrives(page, a);
});

test('handlers that close, abort and end one of two: everybody hears the newest state, once, and off last', async (t) => {
  const { site } = await plain(t);
  const page = await visit(t, site);
  const heard = await page.evaluate(async () => {
    const { Realtime } = await import('/realtime/realtime.js');
    const make = (shared) => new Realtime({ shared, token: async () => (await fetch('/token')).text() });
    const out = {};
    for (const shared of [true, false]) {
      const rt = make(shared), after = [];
      rt.onStatus((s) => { if (s.state === 'live') rt.close(); });
      rt.onStatus((s) => after.push(s.state));
      await rt.ready();
      out[`close ${shared}`] = after.at(-1);
    }
    { const rt = make(false), seen = []; const h = (s) => seen.push(s.state); const end = rt.onStatus(h); rt.onStatus(h); end(); await rt.ready(); out.twice = seen.filter((s) => s === 'live').length; rt.close(); }
    { const rt = make(false), seen = []; const h = () => seen.push(1); const end = rt.on('comments:1', h); rt.on('comments:1', h); end(); end(); rt.hear({ t: 'event', topic: 'comments:1', event: {} }); out.on = seen.length; rt.close(); }
    { const rt = make(false); const kept = []; rt.onStatus((s) => kept.push(s)); await rt.ready(); out.kept = kept.map((s) => s.state); out.frozen = kept.every(Object.isFrozen); rt.close(); }
    return out;
  });
  assert.deepEqual(heard, { 'close true': 'off', 'close false': 'off', twice: 1, on: 1, kept: ['connecting', 'live'], frozen: true });
});

test('back by the back/forward cache: stale until it is live again, and everything is read again', async (t) => {
  const { a, site } = await plain(t);
  const page = await visit(t, site, { path: '/page?1' });
  await join(page);
  await becomes(page, 'live');
  await page.evaluate(() => dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true })));
  await a.publish('comments:42', { type: 'comment.created', data: { n: 1 } });
  await page.evaluate(() => dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true })));
  await becomes(page, 'live');
  await until('read again', async () => (await noted(page)).resyncs.filter((r) => r.reason === 'subscribed').length === 2);
  const { states } = await noted(page);
  assert.ok(!states.slice(1).some((s) => s.state === 'connecting'), JSON.stringify(states.map((s) => s.state)));
  assert.equal(await sessions(a), 1);
});

test('whoever imports the module into a shared worker of their own is left alone', async (t) => {
  const { site } = await plain(t);
  site.hook = (req, res, url) => {
    if (url.pathname !== '/own.js') return false;
    res.writeHead(200, { 'content-type': 'text/javascript' }).end("import '/realtime/realtime.js'; onconnect = ({ ports: [port] }) => { port.onmessage = ({ data }) => port.postMessage(['own', data]); };");
    return true;
  };
  const page = await visit(t, site);
  const heard = await page.evaluate(async () => {
    const { port } = new SharedWorker('/own.js', { type: 'module' });
    const heard = [];
    port.onmessage = ({ data }) => heard.push(data);
    port.postMessage({ t: 'topics', topics: [] });
    port.postMessage('hello');
    for (const end = Date.now() + 5000; heard.length < 2 && Date.now() < end;) await new Promise((go) => setTimeout(go, 50));
    return heard;
  });
  assert.deepEqual(heard, [['own', { t: 'topics', topics: [] }], ['own', 'hello']]);
});

test('another node over SSE: the status says so', async (t) => {
  const r = await redis(t);
  const a = await node(t, 'node-a', { redis: r }), b = await node(t, 'node-b', { redis: r });
  const site = await front(t, a);
  const page = await visit(t, site);
  await join(page, { transports: ['sse'], shared: false });
  await becomes(page, 'live', { node: 'node-a' });
  site.node = b;
  await page.evaluate(() => window.follow('comments:43'));
  await becomes(page, 'live', { node: 'node-b' });
  assert.deepEqual((await noted(page)).states.map((s) => s.node), [null, 'node-a', 'node-b']);
});

test('a prerendered page connects when it is looked at', async (t) => {
  const { a, site } = await plain(t);
  const page = await (await context(t)).newPage();
  await page.addInitScript(() => Object.defineProperty(document, 'prerendering', { get: () => !window.activated }));
  await page.goto(`${site.origin}/page`);
  await join(page);
  await pause(1000);
  assert.deepEqual([await sessions(a), site.asked().length], [0, 0]);
  await page.evaluate(() => { window.activated = true; document.dispatchEvent(new Event('prerenderingchange')); });
  await becomes(page, 'live');
  assert.equal(await sessions(a), 1);
});
