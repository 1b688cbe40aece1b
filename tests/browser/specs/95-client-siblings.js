// Siblings of the tried cases: what a server, a proxy or a page does a little differently each time.
import assert from 'node:assert/strict';
import { WebSocketServer } from 'ws';
import { test, until, pause } from '../lib/harness.js';
import { node } from '../lib/rig.js';
import { context } from '../lib/browser.js';
import { arrives, becomes, front, join, mint, noWebSocket, noted, status, visit } from '../lib/front.js';

for (const shared of [true, false]) {
  test(`a config whose body never ends${shared ? '' : ', not shared'}: given up, asked again, live when it comes whole`, async (t) => {
    const a = await node(t, 'a'), site = await front(t, a);
    let asked = 0;
    site.hook = (req, res, url) => {
      if (url.pathname !== '/realtime/config' || ++asked > 2) return false;
      res.writeHead(200, { 'content-type': 'application/json' }).write('{"websocket":');
      return true;
    };
    const page = await visit(t, site);
    await join(page, { shared });
    await becomes(page, 'live', {}, 40_000);
    assert.equal(asked, 3);
  });
}

for (const transports of [['websocket'], ['sse'], ['poll']]) {
  test(`every answer 200 ms late (${transports}), topics that come and go, the middle one refused: what is followed is followed`, async (t) => {
    const a = await node(t, 'a'), site = await front(t, a);
    site.topics = ['comments:*', 'projects'];
    site.hook = async (req, res, url) => { if (url.pathname.startsWith('/realtime/') && !url.pathname.endsWith('.js')) await pause(200); return false; };
    const page = await visit(t, site);
    await join(page, { transports }, ['comments:1', 'content:9', 'comments:2']);
    await becomes(page, 'live');
    await page.evaluate(() => {
      for (let n = 0; n < 20; n++) { const leave = new AbortController(); window.follow(`comments:${100 + n}`, { signal: leave.signal }); if (n % 2) leave.abort(); }
    });
    await page.evaluate(() => rt.ready());
    await until('all are followed', async () => new Set((await noted(page)).resyncs.map((r) => r.topic)).size === 12);
    const { refused, resyncs } = await noted(page);
    assert.deepEqual(refused, [{ topic: 'content:9', code: 'forbidden' }]);
    assert.equal(resyncs.length, 12, 'each read once');
    await arrives(page, a, 'comments:118');
    await arrives(page, a, 'comments:2');
  });
}

test('a mended cable, then WebSocket is blocked: SSE within five seconds', async (t) => {
  const a = await node(t, 'a'), site = await front(t, a);
  const page = await visit(t, site);
  await join(page);
  await becomes(page, 'live');
  await page.evaluate(() => rt.simulate({ offline: true }));
  await becomes(page, 'stale');
  await pause(8000);
  await page.evaluate(() => rt.simulate({}));
  await becomes(page, 'live', { transport: 'websocket' });
  await pause(3000);
  await page.evaluate(() => rt.simulate({ block: ['websocket'] }));
  await becomes(page, 'live', { transport: 'sse' }, 5000);
});

test('SSE in crumbs, with CRLF, comments and fields of others: every event once', async (t) => {
  const a = await node(t, 'a');
  const site = await front(t, a, { upgrade: noWebSocket });
  const lines = ['retry: 10', ': hello', '', `event: welcome`, `data: ${JSON.stringify({ type: 'welcome', session: 's', node: 'fäke', user: 'anna', heartbeat: 25, at: 1, positions: { 'comments:42': 'L.1-0', comments: 'L.1-0' }, refused: [], live: true })}`, 'id: 1', ''];
  for (let n = 1; n <= 3; n++) lines.push(`data: {"type":"event","topic":"comments:42","position":"L.1-${n}","at":1,`, `data: "event":{"type":"a.b","data":{"n":${n},"text":"Zürich 🍁"}}}`, '', ': beat', '');
  site.hook = (req, res, url) => {
    if (url.pathname !== '/realtime/events') return false;
    res.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
    const bytes = Buffer.from(lines.join('\r\n') + '\r\n');
    let at = 0;
    const drip = setInterval(() => { if (at >= bytes.length) return clearInterval(drip); res.write(bytes.subarray(at, at += 7)); }, 2);
    return true;
  };
  const page = await visit(t, site);
  await join(page, { transports: ['sse'], shared: false });
  await becomes(page, 'live', { node: 'fäke' });
  await until('three', async () => (await noted(page)).events.length === 3);
  assert.deepEqual((await noted(page)).events.map((e) => e.n), [1, 2, 3]);
});

const odd = (messages) => async (t) => {
  const wss = new WebSocketServer({ noServer: true });
  const a = await node(t, 'a');
  const site = await front(t, a, { upgrade: (req, s, head) => { wss.handleUpgrade(req, s, head, (ws) => { ws.on('error', () => {}); ws.on('message', (d) => { const m = JSON.parse(d); if (m.type === 'connect') for (const x of messages(m)) ws.send(typeof x === 'string' || Buffer.isBuffer(x) ? x : JSON.stringify(x)); else if (m.type === 'ping') ws.send('{"type":"pong","at":1}'); else frames.push(m); }); }); return true; } });
  const frames = [];
  const page = await visit(t, site);
  await join(page, { shared: false, transports: ['websocket'] });
  await becomes(page, 'live');
  await pause(4000);
  assert.equal((await status(page)).state, 'live');
  return { page, site, frames };
};
const hello = (m, more) => ({ type: 'welcome', session: 's', node: 'fake', user: 'anna', heartbeat: 25, at: 1, positions: Object.fromEntries(m.topics.map((t) => [t, 'L.1-0'])), refused: [], live: true, ...more });
test('a server that says things that nobody knows: they do no harm', async (t) => {
  const { page } = await odd((m) => ['null', '[]', '"x"', 'no json', '7', '{"type":"later"}', hello(m), hello(m, { node: 'other' }), { type: 'subscribed', positions: {}, refused: [] }, { type: 'unsubscribed', topics: ['content:7'] }, { type: 'resync', topics: [], reason: 'gap' }, { type: 'event', topic: 'comments:42', position: 'L.1-1', at: 1, event: { type: 'a.b', data: { n: 1 } } }])(t);
  assert.deepEqual((await noted(page)).events.map((e) => e.n), [1]);
  assert.deepEqual(page.broken, []);
  assert.equal((await status(page)).node, 'fake');
});
for (const heartbeat of [0, -5, 0.001, null, 'often']) {
  test(`a heartbeat of ${heartbeat}: no storm of pings`, async (t) => {
    let pings = 0;
    const wss = new WebSocketServer({ noServer: true });
    const site = await front(t, await node(t, 'a'), { upgrade: (req, s, head) => { wss.handleUpgrade(req, s, head, (ws) => { ws.on('message', (d) => { const m = JSON.parse(d); if (m.type === 'connect') ws.send(JSON.stringify(hello(m, { heartbeat }))); else { pings++; ws.send('{"type":"pong","at":1}'); } }); }); return true; } });
    const page = await visit(t, site);
    await join(page, { shared: false, transports: ['websocket'] });
    await becomes(page, 'live');
    await pause(5000);
    assert.ok(pings <= 10, `${pings} pings in five seconds`);
  });
}
for (const expires_in of [-1, 0, 0.001, 1e12, 'soon']) {
  test(`a token that is good for ${expires_in} seconds: no storm of token()`, async (t) => {
    const wss = new WebSocketServer({ noServer: true });
    const site = await front(t, await node(t, 'a'), { upgrade: (req, s, head) => { wss.handleUpgrade(req, s, head, (ws) => { ws.on('error', () => {}); ws.on('message', (d) => { const m = JSON.parse(d); if (m.type === 'connect') ws.send(JSON.stringify(hello(m, { expires_in }))); else if (m.type === 'token') ws.send(JSON.stringify({ type: 'token-accepted', expires_in })); else ws.send('{"type":"pong","at":1}'); }); }); return true; } });
    const page = await visit(t, site);
    await join(page, { shared: false, transports: ['websocket'] });
    await becomes(page, 'live');
    await pause(10_000);
    assert.ok(site.asked().length <= 30, `${site.asked().length} in ten seconds`);
    assert.equal((await status(page)).state, 'live');
  });
}

test('close() in every handler, and within token(): off, and nothing after it', async (t) => {
  const a = await node(t, 'a'), site = await front(t, a);
  const page = await visit(t, site);
  const out = await page.evaluate(async () => {
    const { Realtime } = await import('/realtime/realtime.js');
    const text = async () => (await fetch('/token')).text();
    const out = {};
    for (const shared of [true, false]) {
      for (const where of ['token', 'resync', 'ready', 'turn']) {
        const rt = new Realtime({ shared, token: async () => { if (where === 'token') rt.close(); return text(); } });
        const states = [];
        rt.onStatus((s) => states.push(s.state));
        rt.on('comments:1', () => {});
        rt.onResync('comments:1', () => { if (where === 'resync') rt.close(); });
        if (where === 'turn') rt.close();
        if (where === 'ready') rt.ready().then(() => rt.close());
        for (const end = performance.now() + 10_000; rt.status.state !== 'off' && performance.now() < end;) await new Promise((go) => setTimeout(go, 20));
        await new Promise((go) => setTimeout(go, 300));
        out[`${where} ${shared}`] = `${states.at(-1)} ${rt.status.reason}`;
      }
    }
    return out;
  });
  for (const [what, said] of Object.entries(out)) assert.equal(said, 'off closed', what);
  await until('no session', async () => (await a.sessions()).total === 0);
  assert.deepEqual(page.broken, []);
});

test('two pages at once, one shared connection that is refused at first: both live, one session', async (t) => {
  const a = await node(t, 'a'), site = await front(t, a);
  let refused = 0;
  site.upgrade = (req, socket) => { if (refused++ > 1) return false; socket.end('HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n'); return true; };
  site.hook = (req, res, url) => { if (!/events|poll/.test(url.pathname)) return false; res.writeHead(503, { 'retry-after': '1' }).end(); return true; };
  const ctx = await context(t);
  const [one, two] = [await visit(t, site, { ctx }), await visit(t, site, { ctx })];
  await Promise.all([join(one), join(two)]);
  await Promise.all([becomes(one, 'live', {}, 30_000), becomes(two, 'live', {}, 30_000)]);
  assert.equal((await a.sessions()).total, 1);
  await arrives(one, a);
  await arrives(two, a);
});
