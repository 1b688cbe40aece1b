// The client against servers, proxies and clocks: topics that nodes refuse, addresses that are cut, answers that come at once.
import assert from 'node:assert/strict';
import { WebSocketServer } from 'ws';
import { test, until, pause } from '../lib/harness.js';
import { haproxy, nginx, node } from '../lib/rig.js';
import { context } from '../lib/browser.js';
import { arrives, becomes, front, join, noWebSocket, noted, status, visit } from '../lib/front.js';

const BAD = {
  'half of a surrogate pair': [`content:${'Autumn 🍁'.slice(0, 8).replace(' ', '_')}`],
  'a thousand topics': Array.from({ length: 1000 }, (_, n) => `content:${String(n).padStart(80, 'k')}`),
  'a key of 70 KB': [`content:${'x'.repeat(70_000)}`],
  'a comma, a space, nothing, U+0085': ['comments:a,b', 'comments:x ', '', 'comments:', 'comments:a\u0085b'],
};
for (const [what, topics] of Object.entries(BAD)) {
  for (const transports of [['websocket'], ['sse'], ['poll']]) {
    test(`${what} in one tab (${transports}): refused to it, and the other tab goes on`, async (t) => {
      const a = await node(t, 'a'), site = await front(t, a);
      const ctx = await context(t);
      const good = await visit(t, site, { ctx }), bad = await visit(t, site, { ctx });
      await join(good, { transports });
      await becomes(good, 'live');
      await join(bad, { transports }, topics);
      await becomes(bad, 'live');
      const wrong = topics.length === 1000 ? 936 : topics.length;
      await until('refused to it', async () => (await noted(bad)).refused.length >= Math.min(wrong, topics.length));
      await arrives(good, a);
      await bad.close();
      await arrives(good, a);
      const heard = await noted(good);
      assert.deepEqual(heard.refused, []);
      assert.ok(heard.states.every((s) => s.state !== 'off'), JSON.stringify(heard.states));
    });
  }
}

// 64 topics with keys of 200 bytes come back through whatever stands between.
const WIDE = Array.from({ length: 64 }, (_, n) => `content:${String(n).padStart(2, '0')}${'k'.repeat(198)}`);
const behind = {
  'nginx as it comes': async (t, site) => (await nginx(t, `location / { proxy_pass ${site.origin}; proxy_set_header Host $http_host; }`)).base,
  HAProxy: async (t, site) => (await haproxy(t, `defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\nfrontend f\n  bind LISTEN\n  default_backend b\nbackend b\n  server s ${site.origin.slice(7)}\n`)).base,
  'a limit of 2,048 bytes on queries': async (t, site) => {
    site.hook = (req, res, url) => { if (url.search.length <= 2049) return false; res.writeHead(404, { 'content-type': 'text/html' }).end('404.15'); return true; };
    return site.origin;
  },
};
for (const [what, put] of Object.entries(behind)) {
  for (const transports of [['sse'], ['poll']]) {
    test(`64 topics with long keys behind ${what} (${transports}): followed, and resumed after a cut`, async (t) => {
      const a = await node(t, 'a'), site = await front(t, a, { upgrade: noWebSocket });
      const origin = await put(t, site);
      const page = await visit(t, { ...site, origin });
      await join(page, { transports }, WIDE);
      await becomes(page, 'live');
      await until('all are followed', async () => (await noted(page)).resyncs.length === 64);
      await arrives(page, a, WIDE[63]);
      site.cut();
      await a.publish(WIDE[0], { type: 'content.saved', data: { n: 7 } });
      await until('what was missed comes', async () => (await noted(page)).events.some((e) => e.n === 7), 20_000);
      const { resyncs, refused } = await noted(page);
      assert.deepEqual([resyncs.filter((r) => r.reason !== 'subscribed'), refused], [[], []]);
      assert.ok(site.requests.every((r) => r.url.length < 300), 'positions do not travel in addresses');
    });
  }
}

test('an older node that knows no POST: by GET', async (t) => {
  const a = await node(t, 'a'), site = await front(t, a);
  site.hook = (req, res) => { if (req.method !== 'POST') return false; res.writeHead(405, { 'content-type': 'application/problem+json' }).end('{"code":"method-not-allowed"}'); return true; };
  for (const transports of [['sse'], ['poll']]) {
    const page = await visit(t, site);
    await join(page, { transports });
    await becomes(page, 'live');
    await arrives(page, a);
  }
});

// -- servers that answer at once

const welcome = (more = {}) => ({ type: 'welcome', session: 's', node: 'fake', user: 'anna', heartbeat: 25, at: Date.now(), positions: {}, refused: [], live: true, ...more });
const json = (res, body, status = 200, headers = {}) => res.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
const sse = (res, ...messages) => { res.writeHead(200, { 'content-type': 'text/event-stream' }); for (const m of messages) res.write(`data: ${JSON.stringify(m)}\n\n`); };
const say = (ws, m) => ws.send(JSON.stringify(m));
const closing = (ws, code, after) => { say(ws, welcome()); say(ws, { type: 'closing', code, reason: 'x', reconnect_after_ms: after }); ws.close(code); };
let polls = 0;
const HASTY = {
  'polls with nothing in them': { kinds: ['poll'], poll: (res) => json(res, { cursor: 'c1', messages: polls++ ? [] : [welcome()] }) },
  'polls without messages': { kinds: ['poll'], poll: (res) => json(res, polls++ ? { cursor: 'c2' } : { cursor: 'c1', messages: [welcome()] }), live: true },
  'polls that are 204': { kinds: ['poll'], poll: (res) => (polls++ ? res.writeHead(204).end() : json(res, { cursor: 'c1', messages: [welcome()] })) },
  'polls full of events': { kinds: ['poll'], poll: (res) => json(res, { cursor: `c${polls}`, messages: polls++ ? [{ type: 'event', topic: 'comments:42', at: 1, event: { type: 'a.b' } }] : [welcome()] }) },
  'a drain that says: at once': { ws: (ws) => closing(ws, 1012, 0) },
  'too busy, come back at once': { ws: (ws) => closing(ws, 1013, 0) },
  'welcomed and closed': { ws: (ws) => { say(ws, welcome()); ws.close(1001); } },
  'welcomed, and the token is refused': { ws: (ws) => { say(ws, welcome()); ws.close(4401); } },
  'every token expires': { ws: (ws) => { say(ws, welcome({ expires_in: 1 })); say(ws, { type: 'token-expiring', expires_in: 1 }); ws.on('message', (d) => { if (JSON.parse(d).type === 'token') { say(ws, { type: 'token-accepted', expires_in: 1 }); say(ws, { type: 'token-expiring', expires_in: 1 }); } }); } },
  'streams whose token expires': { kinds: ['sse'], sse: (res) => sse(res, welcome({ expires_in: 20 }), { type: 'token-expiring', expires_in: 20 }) },
  'streams that end': { kinds: ['sse'], sse: (res) => { sse(res, welcome()); res.end(); } },
  '429, at once': { kinds: ['sse', 'poll'], sse: (res) => json(res, {}, 429, { 'retry-after': '0' }), poll: (res) => json(res, {}, 429, { 'retry-after': '0' }) },
  '401 for everything': { kinds: ['sse', 'poll'], sse: (res) => json(res, {}, 401), poll: (res) => json(res, {}, 401) },
  'a page of the site for everything': { any: (res) => res.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html>') },
};
for (const [what, server] of Object.entries(HASTY)) {
  test(`${what}: no more than 30 requests, sockets and token() calls in ten seconds`, async (t) => {
    const wss = new WebSocketServer({ noServer: true });
    const real = await node(t, 'a');
    polls = 0;
    const site = await front(t, real, {
      hook: (req, res, url) => {
        if (!url.pathname.startsWith('/realtime') || url.pathname.endsWith('.js')) return false;
        if (server.any) server.any(res);
        else if (url.pathname.endsWith('/config')) json(res, { websocket: true, sse: true, poll: true, heartbeat: 25, version: 'x' });
        else (server[{ '/realtime/events': 'sse', '/realtime/poll': 'poll' }[url.pathname]] ?? ((r) => json(r, {}, 404)))(res);
        return true;
      },
      upgrade: (req, socket, head) => (server.ws ? wss.handleUpgrade(req, socket, head, (ws) => { ws.on('error', () => {}); ws.once('message', () => server.ws(ws)); }) : noWebSocket(req, socket), true),
    });
    const page = await visit(t, site);
    await join(page, { shared: false, ...(server.kinds && { transports: server.kinds }) });
    await pause(10_000);
    const asked = site.asked();
    assert.ok(asked.length >= 2, 'something was asked');
    assert.ok(asked.length <= 30, `${asked.length} in ten seconds`);
    if (server.live) assert.equal((await status(page)).state, 'live');
    await page.evaluate(() => rt.close());
    await pause(300);
    const closed = Date.now();
    await pause(2000);
    assert.deepEqual(site.asked(closed), [], 'none after close()');
    assert.deepEqual(page.broken, []);
  });
}

test('an old answer does not complete a newer subscription', async (t) => {
  const wss = new WebSocketServer({ noServer: true });
  let socket, asked = 0, release;
  const site = await front(t, await node(t, 'a'), {
    hook: (req, res, url) => { if (url.pathname !== '/realtime/config') return false; json(res, { websocket: true, sse: false, poll: false }); return true; },
    upgrade: (req, s, head) => wss.handleUpgrade(req, s, head, (ws) => {
      socket = ws;
      const questions = [];
      const answer = () => { for (const m of questions.splice(0, 1)) say(ws, m.type === 'unsubscribe' ? { type: 'unsubscribed', topics: m.topics } : { type: 'subscribed', at: 1, positions: {}, refused: [] }); };
      release = answer;
      ws.on('message', (d) => { const m = JSON.parse(d); if (m.type === 'connect') say(ws, welcome()); else if (m.type === 'ping') say(ws, { type: 'pong', at: 1 }); else { asked++; questions.push(m); } });
    }) ?? true,
  });
  const page = await visit(t, site);
  await join(page, { shared: false }, []);
  await becomes(page, 'live');
  await page.evaluate(() => { window.first = new AbortController(); window.follow('comments:42', { signal: window.first.signal }); });
  await until('asked', () => asked === 1);
  await page.evaluate(() => window.first.abort());
  await until('taken back', () => asked === 2);
  await page.evaluate(() => window.follow('comments:42'));
  await until('asked again', () => asked === 3);
  release();    // the first question
  release();    // what took it back
  await pause(300);
  assert.deepEqual((await noted(page)).resyncs, [], 'not followed yet');
  release();
  await until('followed', async () => (await noted(page)).resyncs.length === 1);
  assert.ok(socket);
});

test('WebSockets that live for two seconds each: the client stays with what holds', async (t) => {
  const a = await node(t, 'a'), site = await front(t, a, { upgrade: (req, socket) => { setTimeout(() => socket.destroy(), 2000); return false; } });
  const page = await visit(t, site);
  await join(page, { shared: false });
  await becomes(page, 'live', { transport: 'sse' }, 40_000);
  const since = Date.now();
  await pause(25_000);
  assert.equal((await status(page)).transport, 'sse');
  assert.ok(site.requests.filter((r) => r.at > since && r.method === 'UPGRADE').length === 0, 'and does not go back to it soon');
});

for (const [transport, jump] of [['sse', -3_600_000], ['sse', 0], ['websocket', -3_600_000]]) {
  test(`a silent ${transport} is noticed${jump ? ', although the clock is set back by an hour' : ''}`, async (t) => {
    const a = await node(t, 'a', { HEARTBEAT__SECONDS: 5 });
    const site = await front(t, a);
    const page = await visit(t, site);
    await join(page, { shared: false, transports: [transport] });
    await becomes(page, 'live');
    await page.evaluate((jump) => { const real = Date.now; Date.now = () => real() + jump; }, jump);
    process.kill(a.child.pid, 'SIGSTOP');
    await becomes(page, 'stale', {}, 30_000);
    process.kill(a.child.pid, 'SIGCONT');
    await becomes(page, 'live', {}, 40_000);
  });
}
