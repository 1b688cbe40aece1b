// The client against a node of its own, in Node's test runner: the ladder, resume, tokens, sharing, handlers.
import test from 'node:test';
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { WebSocket } from 'ws';
import { FakeNode, mint, until } from './fake-node.js';

globalThis.WebSocket = class extends WebSocket { constructor(url) { super(url); this.on('error', () => {}); } };    // a browser's does not throw either
const { Realtime, Hub, VERSION } = await import('../realtime.js');

async function setup(t, options = {}, client = {}) {
  const node = await new FakeNode(options).listen();
  const rt = new Realtime({ url: node.url, token: async () => mint('anna'), shared: false, ...client });
  const states = [];
  rt.onStatus((s) => states.push(s.state));
  t.after(async () => { rt.close(); await node.kill().catch(() => {}); });
  return { node, rt, states, live: (kind) => until(`live by ${kind}`, () => rt.status.state === 'live' && (!kind || rt.status.transport === kind)) };
}
/** Follows a topic and notes what comes, as an auditor does. */
function audit(rt, topic) {
  const events = [], resyncs = [], replayed = [];
  rt.on(topic, (e, about) => { events.push(e.n); replayed.push(about.replayed); });
  rt.onResync(topic, (r) => resyncs.push(`${r.topic} ${r.reason}`));
  return { events, resyncs, replayed, followed: () => until(`${topic} followed`, () => resyncs.includes(`${topic} subscribed`)) };
}
const silence = (t) => { const said = []; for (const level of ['info', 'warn', 'error']) t.mock.method(console, level, (m) => said.push(m)); return said; };

test('connects by WebSocket, follows, gets events in order, and tells its state', async (t) => {
  const { node, rt, states, live } = await setup(t);
  const a = audit(rt, 'comments:42');
  assert.equal(rt.status.state, 'connecting');
  await live('websocket');
  await a.followed();
  for (let n = 1; n <= 50; n++) node.publish('comments:42', { type: 'comment.created', n });
  node.publish('comments', { type: 'comment.created', n: 51 });
  await until('51 events', () => a.events.length === 51);
  assert.deepEqual(a.events, Array.from({ length: 51 }, (_, i) => i + 1));
  assert.deepEqual(states, ['connecting', 'live']);
  assert.equal(rt.status.node, 'fake-1');
  assert.equal(rt.status.user, 'anna');
  assert.deepEqual(a.resyncs, ['comments:42 subscribed']);
});

for (const [mode, transport] of [['200', 'sse'], ['502', 'sse'], ['hang', 'sse'], ['mute', 'sse']]) {
  test(`WebSocket answered by “${mode}”: live by ${transport} within 5 s, one console line`, async (t) => {
    const said = silence(t);
    const begun = Date.now();
    const { node, rt, live } = await setup(t, { wsMode: mode });
    const a = audit(rt, 'comments:42');
    await live(transport);
    assert.ok(Date.now() - begun < 5000);
    await a.followed();
    node.publish('comments:42', { type: 'comment.created', n: 1 });
    await until('the event', () => a.events.length === 1);
    assert.equal(said.length, 1);
    assert.match(said[0], /WebSocket does not get through .* SSE/);
  });
}

test('nothing but long-poll gets through: live within 5 s, events in order, none twice', async (t) => {
  silence(t);
  const begun = Date.now();
  const { node, rt, live } = await setup(t, { wsMode: 'hang', sseMode: 'hang' });
  const a = audit(rt, 'comments:42');
  await live('poll');
  assert.ok(Date.now() - begun < 5000, `${Date.now() - begun} ms`);
  await a.followed();
  for (let n = 1; n <= 30; n++) { node.publish('comments:42', { type: 'x.y', n }); if (n % 7 === 0) await new Promise((go) => setTimeout(go, 15)); }
  await until('30 events', () => a.events.length >= 30);
  assert.deepEqual(a.events, Array.from({ length: 30 }, (_, i) => i + 1));
  assert.deepEqual(a.resyncs, ['comments:42 subscribed']);
});

test('the choice is remembered: after a cut the fallback is taken at once, without WebSocket', async (t) => {
  silence(t);
  const { node, rt, live } = await setup(t, { wsMode: '200' });
  audit(rt, 'comments:42');
  await live('sse');
  assert.equal(node.counts.websocket, 1);
  [...node.sessions][0].cut();
  await until('not live', () => rt.status.state === 'stale');
  await live('sse');
  assert.equal(node.counts.websocket, 1);
});

test('WebSocket is found again once it gets through, nothing lost or doubled over the switch', async (t) => {
  silence(t);
  const { node, rt, live } = await setup(t, { wsMode: '200' });
  const a = audit(rt, 'comments:42');
  await live('sse');
  await a.followed();
  let n = 0;
  const publishing = setInterval(() => node.publish('comments:42', { type: 'x.y', n: ++n }), 3);
  node.wsMode = 'ok';
  rt.post({ t: 'poke', why: 'visible' });
  await live('websocket');
  await new Promise((go) => setTimeout(go, 100));
  clearInterval(publishing);
  await until('all events', () => a.events.length >= n);
  assert.deepEqual(a.events, Array.from({ length: n }, (_, i) => i + 1));
  assert.deepEqual(a.resyncs, ['comments:42 subscribed']);
  await until('one session', () => node.sessions.size === 1);
});

test('from WebSocket down to long-poll by position: nothing lost or doubled', async (t) => {
  silence(t);
  const { node, rt, live } = await setup(t);
  const a = audit(rt, 'comments:42');
  await live('websocket');
  await a.followed();
  let n = 0;
  const publishing = setInterval(() => node.publish('comments:42', { type: 'x.y', n: ++n }), 3);
  await until('some', () => a.events.length > 5);
  rt.simulate({ block: ['websocket', 'sse'] });
  await live('poll');
  await new Promise((go) => setTimeout(go, 50));
  rt.simulate({ block: ['websocket'], drop: true });
  await live('sse').catch(() => {});
  rt.simulate({ drop: true });
  await live();
  await new Promise((go) => setTimeout(go, 50));
  clearInterval(publishing);
  await until('all events', () => a.events.length >= n);
  assert.deepEqual(a.events, Array.from({ length: n }, (_, i) => i + 1));
  assert.deepEqual(a.resyncs, ['comments:42 subscribed']);
  assert.ok(a.replayed.some(Boolean));
});

test('a node that cannot resume is seen through: resync, never a silent hole', async (t) => {
  const { node, rt, live } = await setup(t, { knowsResume: false });
  const a = audit(rt, 'comments:42');
  await live();
  await a.followed();
  node.publish('comments:42', { type: 'x.y', n: 1 });
  await until('first', () => a.events.length === 1);
  rt.simulate({ offline: true });
  node.publish('comments:42', { type: 'x.y', n: 2 });
  rt.simulate({});
  await until('resync', () => a.resyncs.includes('comments:42 gap'));
});

test('a node is killed and comes back: stale, then live, exact replay', async (t) => {
  silence(t);
  const { node, rt, states, live } = await setup(t);
  const a = audit(rt, 'comments:42');
  await live();
  await a.followed();
  node.publish('comments:42', { type: 'x.y', n: 1 });
  await until('first', () => a.events.length === 1);
  await node.kill();
  await until('stale', () => rt.status.state === 'stale');
  const second = new FakeNode({ name: 'fake-2', epoch: node.epoch });
  second.logs = node.logs;
  for (let n = 2; n <= 20; n++) second.publish('comments:42', { type: 'x.y', n });
  await second.listen(node.port);
  t.after(() => second.kill());
  await live();
  await until('replay', () => a.events.length === 20);
  assert.deepEqual(a.events, Array.from({ length: 20 }, (_, i) => i + 1));
  assert.deepEqual(a.resyncs, ['comments:42 subscribed']);
  assert.deepEqual(states, ['connecting', 'live', 'stale', 'live']);
  assert.deepEqual(a.replayed.slice(1), Array(19).fill(true));
});

test('redis-changed: one resync within the spread, then events go on', async (t) => {
  const { node, rt, live } = await setup(t);
  const a = audit(rt, 'comments:42');
  await live();
  await a.followed();
  node.lineage = 'L2';
  node.drop();
  await until('stale', () => rt.status.state === 'stale');
  await live();
  await until('both resyncs', () => a.resyncs.length === 3);
  assert.deepEqual(a.resyncs.slice(1).sort(), ['comments redis-changed', 'comments:42 redis-changed']);
  node.publish('comments:42', { type: 'x.y', n: 1 });
  await until('event', () => a.events.length === 1);
});

test('drain: waits as long as it is told', async (t) => {
  const { node, rt, live } = await setup(t);
  audit(rt, 'comments:42');
  await live();
  const told = Date.now();
  [...node.sessions][0].close(1012, 700);
  await until('stale', () => rt.status.state === 'stale');
  await live();
  const waited = Date.now() - told;
  assert.ok(waited >= 690 && waited < 2500, `${waited} ms`);
});

test('503 with Retry-After is waited out instead of going down the ladder', async (t) => {
  silence(t);
  const { node, live } = await setup(t, { wsMode: '502', sseMode: 'busy' });
  await until('asked', () => node.counts.sse === 1);
  node.wsMode = 'ok';
  await live('websocket');
  assert.equal(node.counts.poll, 0);
});

test('status live:false is told, and taken back', async (t) => {
  const { node, rt, live } = await setup(t);
  audit(rt, 'comments:42');
  await live();
  node.tell({ type: 'status', live: false, since: '2026-11-21T22:30:00Z' });
  await until('stale', () => rt.status.state === 'stale');
  assert.equal(rt.status.since, '2026-11-21T22:30:00.000Z');
  node.tell({ type: 'status', live: true, since: '2026-11-21T22:30:09Z' });
  await live();
});

test('tokens: renewed before they end, over the same session', async (t) => {
  let made = 0;
  const { node, rt, live } = await setup(t, {}, { token: async () => { made++; return mint('anna', 3); } });
  audit(rt, 'comments:42');
  await live();
  await until('a fresh token was sent', () => node.sent.some((m) => m.type === 'token'));
  assert.ok(made >= 2);
  assert.equal(node.counts.websocket, 1);
  assert.equal(rt.status.state, 'live');
});

for (const block of ['websocket', 'websocket,sse']) {
  test(`tokens: with ${block} blocked a short token is renewed and nothing is lost`, async (t) => {
    silence(t);
    const tokens = new Set();
    const { node, rt, live } = await setup(t, { wsMode: '200', sseMode: block.includes('sse') ? '404' : 'ok' }, { token: async () => { const m = mint('anna', 2); tokens.add(m); return m; } });
    const a = audit(rt, 'comments:42');
    await live(block.includes('sse') ? 'poll' : 'sse');
    await a.followed();
    let n = 0;
    const end = Date.now() + 4500;
    while (Date.now() < end) { node.publish('comments:42', { type: 'x.y', n: ++n }); await new Promise((go) => setTimeout(go, 50)); }
    await until('all', () => a.events.length === n);
    assert.deepEqual(a.events, Array.from({ length: n }, (_, i) => i + 1));
    assert.ok(tokens.size >= 3);
    assert.deepEqual(a.resyncs, ['comments:42 subscribed']);
  });
}

test('tokens: refused with 4401, a new one is fetched', async (t) => {
  const made = [];
  const { live } = await setup(t, {}, { token: async () => { made.push(1); return mint('anna', made.length === 1 ? -100 : 600); } });
  await live();
  assert.equal(made.length, 2);
});

test('tokens: token() that fails is tried again and said once', async (t) => {
  const said = silence(t);
  let tries = 0;
  const { live } = await setup(t, {}, { token: async () => { if (++tries < 3) throw new Error('CMS away'); return mint('anna'); } });
  await live();
  assert.deepEqual(said, ['[carillon] token() failed: CMS away. Live updates begin when it works.']);
});

test('4403: off, and stays off', async (t) => {
  const said = silence(t);
  const { node, rt, live } = await setup(t);
  await live();
  [...node.sessions][0].close(4403);
  await until('off', () => rt.status.state === 'off');
  assert.equal(rt.status.reason, 'forbidden');
  assert.equal(said.length, 1);
  assert.equal(node.counts.websocket, 1);
  assert.equal((await rt.ready()).state, 'off');
});

test('websocket:false in config: none is opened; all false: off, nothing is opened', async (t) => {
  silence(t);
  const one = await setup(t, { config: { websocket: false } });
  await one.live('sse');
  assert.equal(one.node.counts.websocket, 0);
  const none = await setup(t, { config: { websocket: false, sse: false, poll: false } });
  await until('off', () => none.rt.status.state === 'off');
  assert.equal(none.rt.status.reason, 'disabled');
  assert.deepEqual([none.node.counts.websocket, none.node.counts.sse, none.node.counts.poll], [0, 0, 0]);
});

test('a dead link that says nothing is found by the own ping', async (t) => {
  const { node, rt, live } = await setup(t, { heartbeat: 1 });
  await live();
  node.pongs = false;
  await until('stale', () => rt.status.state === 'stale', 9000);
  node.pongs = true;
  await live();
});

test('an idle cut is learned: pings come before it', async (t) => {
  const { node, rt, live } = await setup(t);
  await live();
  const cut = async () => { await new Promise((go) => setTimeout(go, 2700)); [...node.sessions][0].cut(); await until('stale', () => rt.status.state === 'stale'); await live(); };
  await cut();
  await cut();
  await until('a ping', () => node.sent.some((m) => m.type === 'ping'), 4000);
});

test('the first reconnect is spread too', async (t) => {
  const node = await new FakeNode().listen();
  const many = Array.from({ length: 30 }, () => new Realtime({ url: node.url, token: mint('anna'), shared: false }));
  t.after(async () => { for (const rt of many) rt.close(); await node.kill(); });
  await until('all live', () => many.every((rt) => rt.status.state === 'live'));
  const times = [];
  let dropped = false;
  many.forEach((rt) => rt.onStatus((s) => { if (s.state === 'live' && dropped) times.push(Date.now()); }));
  dropped = true;
  node.drop();
  await until('all came back', () => times.length === 30);
  await until('all live again', () => many.every((rt) => rt.status.state === 'live'));
  times.sort();
  assert.ok(times.at(-1) - times[0] > 250, `within ${times.at(-1) - times[0]} ms`);
});

test('own echo is dropped, others with the same event come', async (t) => {
  const { node, rt, live } = await setup(t);
  const a = audit(rt, 'comments:42');
  await live();
  await a.followed();
  node.publish('comments:42', { type: 'x.y', n: 1, origin: rt.id });
  node.publish('comments:42', { type: 'x.y', n: 2, origin: 'tab-other' });
  await until('the other', () => a.events.length === 1);
  assert.deepEqual(a.events, [2]);
});

test('several handlers, AbortSignal, once, unsubscribe by function and by off()', async (t) => {
  const { node, rt, live } = await setup(t);
  const got = [];
  const abort = new AbortController();
  rt.on('comments:42', (e) => got.push(`a${e.n}`), { signal: abort.signal });
  const stop = rt.on('comments:42', { handleEvent: (e) => got.push(`b${e.n}`) });
  rt.on('comments:42', (e) => got.push(`c${e.n}`), { once: true });
  const d = (e) => got.push(`d${e.n}`);
  rt.on('comments:42', d);
  rt.addEventListener('event', (e) => got.push(`e${e.detail.event.n}`));
  await live();
  await until('followed', () => rt.followed.has('comments:42'));
  node.publish('comments:42', { type: 'x.y', n: 1 });
  await until('five', () => got.length === 5);
  abort.abort();
  node.publish('comments:42', { type: 'x.y', n: 2 });
  await until('three more', () => got.length === 8);
  stop();
  rt.off('comments:42', d);
  await until('unsubscribed', () => node.sent.some((m) => m.type === 'unsubscribe' && m.topics[0] === 'comments:42'));
  assert.deepEqual(got, ['a1', 'b1', 'c1', 'd1', 'e1', 'b2', 'd2', 'e2']);
});

test('nothing is thrown into the page: handlers, options, urls', async (t) => {
  const said = silence(t);
  const reported = [];
  globalThis.reportError = (e) => reported.push(e.message);
  t.after(() => { delete globalThis.reportError; });
  const { node, rt, live } = await setup(t, {}, { transports: ['websocket', 'pigeon'] });
  const a = { n: 0 };
  rt.on('comments:42', () => { throw new Error('mine'); });
  rt.on('comments:42', async () => { throw new Error('later'); });
  rt.on('comments:42', () => a.n++);
  await live();
  await until('followed', () => rt.followed.has('comments:42'));
  node.publish('comments:42', { type: 'x.y' });
  await until('third handler', () => a.n === 1);
  await until('reports', () => reported.length === 2);
  assert.deepEqual(reported, ['mine', 'later']);
  assert.match(said[0], /pigeon/);
  const bad = new Realtime({ url: 'http://[', shared: false });
  bad.close();
});

test('refused topics: said once, told by an event, no resync', async (t) => {
  const said = silence(t);
  const { rt, live } = await setup(t);
  const refused = [];
  rt.addEventListener('refused', (e) => refused.push(`${e.detail.topic} ${e.detail.code}`));
  const a = audit(rt, 'secret:1');
  await live();
  await until('refused', () => refused.length === 1);
  assert.deepEqual(refused, ['secret:1 forbidden']);
  assert.deepEqual(a.resyncs, []);
  assert.equal(said.length, 1);
});

test('subscribing while live, a handler that comes late, and wildcards', async (t) => {
  const { node, rt, live } = await setup(t);
  await live();
  const a = audit(rt, 'comments:42');
  await a.followed();
  const late = [];
  rt.onResync('comments:42', (r) => late.push(r.reason));
  await until('late handler told', () => late.length === 1);
  const all = audit(rt, 'project-items:*');
  await all.followed();
  node.publish('project-items:7', { type: 'x.y', n: 7 });
  node.publish('project-items', { type: 'x.y', n: 8 });
  await until('both', () => all.events.length === 2);
});

test('subscribing on SSE opens again and loses nothing', async (t) => {
  silence(t);
  const { node, rt, live, states } = await setup(t, { wsMode: '200' });
  const a = audit(rt, 'comments:42');
  await live('sse');
  await a.followed();
  node.publish('comments:42', { type: 'x.y', n: 1 });
  const b = audit(rt, 'comments:43');
  node.publish('comments:42', { type: 'x.y', n: 2 });
  await b.followed();
  node.publish('comments:42', { type: 'x.y', n: 3 });
  node.publish('comments:43', { type: 'x.y', n: 4 });
  await until('all', () => a.events.length === 3 && b.events.length === 1);
  assert.deepEqual(a.events, [1, 2, 3]);
  assert.deepEqual(a.resyncs, ['comments:42 subscribed']);
  assert.deepEqual(b.resyncs, ['comments:43 subscribed']);
  assert.deepEqual(states, ['connecting', 'live']);
});

test('every snippet of README.md is well-formed', async (t) => {
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
  const snippets = [...readme.matchAll(/```js\n([\s\S]*?)```/g)].map(([, code]) => code);
  assert.ok(snippets.length >= 4);
  const file = join(mkdtempSync(join(tmpdir(), 'carillon-snippets-')), 'snippet.mjs');
  t.after(() => rmSync(dirname(file), { recursive: true }));
  for (const code of snippets) {
    writeFileSync(file, code);
    await promisify(execFile)(process.execPath, ['--check', file]).catch((error) => assert.fail(error.stderr));
  }
});

test('topics encode their keys', () => {
  assert.equal(Realtime.topic('notifications', 'anna lind*{}'), 'notifications:anna%20lind%2A%7B%7D');
  assert.equal(Realtime.topic('comments', 42), 'comments:42');
});

// -- the worker, in one process: what SharedWorker does is join pages to a Hub by name

function workers(t) {
  const hubs = new Map(), ports = [];
  globalThis.SharedWorker = class {
    constructor(url, { name, type }) {
      assert.equal(type, 'module');
      assert.match(url.href, /realtime\.js$/);
      const { port1, port2 } = new MessageChannel();
      if (!hubs.has(name)) hubs.set(name, new Hub());
      hubs.get(name).add(port2);
      ports.push(port1, port2);
      this.port = port1;
    }
  };
  t.after(() => { delete globalThis.SharedWorker; for (const p of ports) p.close(); });
  return hubs;
}

test('ten tabs, one connection; the first one closes, the others go on', async (t) => {
  const hubs = workers(t);
  const node = await new FakeNode().listen();
  const tabs = Array.from({ length: 10 }, () => new Realtime({ url: node.url, token: async () => mint('anna') }));
  t.after(async () => { for (const rt of tabs) rt.close(); await node.kill(); });
  const audits = tabs.map((rt) => audit(rt, 'comments:42'));
  for (const a of audits) await a.followed();
  assert.equal(node.counts.websocket, 1);
  assert.equal(hubs.size, 1);
  tabs[0].close();
  node.publish('comments:42', { type: 'x.y', n: 1, origin: tabs[3].id });
  await until('the others', () => audits.filter((a) => a.events.length === 1).length === 8);
  assert.equal(audits[0].events.length, 0);
  assert.equal(audits[3].events.length, 0);
  assert.equal(node.counts.websocket, 1);
  for (const rt of tabs) rt.close();
  await until('the connection ends with the last tab', () => node.sessions.size === 0);
});

test('a token is fetched from another tab when the first one does not answer', async (t) => {
  workers(t);
  const node = await new FakeNode().listen();
  let frozen = false;
  const first = new Realtime({ url: node.url, token: () => (frozen ? new Promise(() => {}) : mint('anna', 3)) });
  const second = new Realtime({ url: node.url, token: () => mint('anna', frozen ? 600 : 3) });
  t.after(async () => { first.close(); second.close(); await node.kill(); });
  await Promise.all([first.ready(), second.ready()]);
  frozen = true;
  await until('a fresh token', () => node.sent.some((m) => m.type === 'token'), 9000);
  assert.equal(second.status.state, 'live');
});

test('signing out and in as another user leaks nothing', async (t) => {
  silence(t);
  const hubs = workers(t);
  const node = await new FakeNode().listen();
  let user = 'anna';
  const token = async () => mint(user, 2);
  const old = new Realtime({ url: node.url, token });
  const seen = [], followed = [];
  old.on('comments:42', (e) => seen.push(e.n));
  old.onResync('comments:42', (r) => followed.push(r.reason));
  await old.ready();
  t.after(async () => { old.close(); await node.kill(); });
  await until('followed', () => followed.length === 1);
  user = 'bilal';                                                     // the cookie of the CMS changed hands
  const fresh = new Realtime({ url: node.url, token });               // a tab opened after it
  t.after(() => fresh.close());
  assert.equal((await fresh.ready()).user, 'bilal');
  assert.equal(hubs.size, 2);
  for (const m of node.sent) if (m.type === 'token') assert.equal(JSON.parse(Buffer.from(m.token.split('.')[1], 'base64url')).sub, 'anna');
  await until('the old tab became bilal', () => old.status.user === 'bilal' && old.status.state === 'live');
  await until('and reads everything again', () => followed.length === 2);
  await until("anna's connection is gone", () => [...node.sessions].every((s) => s.user === 'bilal'));
  assert.ok(node.connects.filter((c) => c.user === 'bilal').every((c) => !c.resume), 'no position of anna is used for bilal');
});

test('a worker of another protocol, or one that never answers: each tab connects by itself', async (t) => {
  for (const answer of [{ t: 'hello', v: 99 }, null]) {
    globalThis.SharedWorker = class {
      constructor() { const { port1, port2 } = new MessageChannel(); this.port = port1; port2.onmessage = (e) => { if (e.data.t === 'bye') port2.close(); else if (answer) port2.postMessage(answer); }; }
    };
    const { rt } = await setup(t, {}, { shared: true });
    await until('live by itself', () => rt.status.state === 'live', 12_000);
    delete globalThis.SharedWorker;
  }
});

test('SharedWorker refused (cross-origin, CSP): each tab connects by itself', async (t) => {
  globalThis.SharedWorker = class { constructor() { throw new DOMException('no', 'SecurityError'); } };
  t.after(() => { delete globalThis.SharedWorker; });
  const { live } = await setup(t, {}, { shared: true });
  await live('websocket');
});

test('`replayed` ends with what was missed, even before the node has a newer proof', async (t) => {
  const { node, rt, live } = await setup(t, { provenAt: Date.now() });
  const a = audit(rt, 'comments:42');
  await live();
  await a.followed();
  node.publish('comments:42', { type: 'x.y', n: 1 });
  await until('first', () => a.events.length === 1);
  rt.simulate({ offline: true });
  node.publish('comments:42', { type: 'x.y', n: 2 });
  rt.simulate({});
  await until('the missed one', () => a.events.length === 2);
  await until('the pong behind it', () => node.sent.some((m) => m.type === 'ping'));
  await new Promise((go) => setTimeout(go, 30));
  node.publish('comments:42', { type: 'x.y', n: 3 });
  await until('the next one', () => a.events.length === 3);
  assert.deepEqual(a.replayed, [false, true, false]);
});

test('ready() waits until what was asked for is followed, or refused', async (t) => {
  silence(t);
  workers(t);
  const node = await new FakeNode().listen();
  const make = () => new Realtime({ url: node.url, token: () => mint('anna') });
  const first = make();
  t.after(async () => { first.close(); await node.kill(); });
  first.on('secret:1', () => {});
  assert.equal((await first.ready()).state, 'live');
  const second = make();                                              // joins a connection that is live already
  t.after(() => second.close());
  const refused = [];
  second.addEventListener('refused', (e) => refused.push(e.detail.topic));
  const a = audit(second, 'comments:42');
  second.on('secret:1', () => {});
  await second.ready();
  assert.deepEqual(refused, ['secret:1'], 'told to the tab that came later, too');
  node.publish('comments:42', { type: 'x.y', n: 1 });
  await until('the event', () => a.events.length === 1);
  assert.equal(node.counts.websocket, 1);
});

test('ten tabs of a slow CMS: the token is renewed, and not asked of all of them', async (t) => {
  workers(t);
  const node = await new FakeNode().listen();
  let asked = 0, slow = false;
  const token = async () => { asked++; if (slow) await new Promise((go) => setTimeout(go, 1300)); return mint('anna', slow ? 600 : 4); };
  const tabs = Array.from({ length: 10 }, () => new Realtime({ url: node.url, token }));
  t.after(async () => { for (const rt of tabs) rt.close(); await node.kill(); });
  await Promise.all(tabs.map((rt) => rt.ready()));
  asked = 0;
  slow = true;
  await until('a fresh token', () => node.sent.some((m) => m.type === 'token'), 9000);
  assert.ok(asked <= 2, `${asked} tabs were asked`);
  assert.equal(tabs[0].status.state, 'live');
});

test('a token that is never renewed: no storm of requests', async (t) => {
  silence(t);
  const token = mint('anna', 3);
  const { node, live } = await setup(t, {}, { token });
  await live();
  await new Promise((go) => setTimeout(go, 4500));
  assert.ok(node.sent.filter((m) => m.type === 'token').length <= 4);
  assert.ok(node.counts.websocket <= 5, `${node.counts.websocket} connects`);
});

test('long-poll behind a proxy that cuts: goes on while there is a node behind it, says so when there is none', async (t) => {
  silence(t);
  const { node, rt, live } = await setup(t, { pollMode: 'cut' }, { transports: ['poll'] });
  const a = audit(rt, 'comments:42');
  await live('poll');
  await a.followed();
  await until('cut and asked again', () => node.counts.poll >= 3);
  assert.equal(rt.status.state, 'live');
  node.configMode = '502';
  await until('it is told', () => rt.status.state === 'stale', 9000);
  node.publish('comments:42', { type: 'x.y', n: 1 });
  node.pollMode = node.configMode = 'ok';
  await live('poll');
  await until('what was missed', () => a.events.length === 1);
  assert.deepEqual(a.resyncs, ['comments:42 subscribed']);
});

test('403 of a firewall is a way that is closed; 403 of the node is final', async (t) => {
  silence(t);
  const firewall = await setup(t, { wsMode: '502', sseMode: '403' });
  await firewall.live('poll');
  const node = await setup(t, { wsMode: '502', sseMode: 'forbidden' });
  await until('off', () => node.rt.status.state === 'off');
  assert.equal(node.rt.status.reason, 'forbidden');
});

test('after `forbidden`, a tab that comes with a fresh token tries again', async (t) => {
  silence(t);
  workers(t);
  const node = await new FakeNode().listen();
  const first = new Realtime({ url: node.url, token: () => mint('anna') });
  t.after(async () => { first.close(); await node.kill(); });
  await first.ready();
  [...node.sessions][0].close(4403);
  await until('off', () => first.status.state === 'off');
  const second = new Realtime({ url: node.url, token: () => mint('anna') });
  t.after(() => second.close());
  await until('both are live', () => first.status.state === 'live' && second.status.state === 'live');
});

test('a flood: 20,000 events come in order, and what is kept of them is bounded', async (t) => {
  const hubs = workers(t);
  const { node, rt, live } = await setup(t, {}, { shared: true });
  const a = audit(rt, 'comments:42');
  await live();
  await a.followed();
  for (let n = 1; n <= 20_000; n++) { node.publish('comments:42', { type: 'x.y', n }); if (n % 500 === 0) await new Promise((go) => setImmediate(go)); }
  await until('all of them', () => a.events.length === 20_000, 20_000);
  assert.ok(a.events.every((n, i) => n === i + 1));
  const [{ link }] = hubs.values();
  assert.ok(link.seen.size <= 2000 && link.seen.size > 0);
});

test('in Node, without a page: no WebSocket before Node 22 is no fault of a proxy, and close() lets the process end', async (t) => {
  const node = await new FakeNode().listen();
  t.after(() => node.kill());
  const script = `
    delete globalThis.WebSocket;
    const { Realtime } = await import(${JSON.stringify(new URL('../realtime.js', import.meta.url).href)});
    const rt = new Realtime({ url: '${node.url}', token: '${mint('anna')}' });
    const { state, transport } = await rt.ready();
    console.log(state, transport);
    rt.close();`;
  const begun = Date.now();
  const { stdout, stderr } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script]);
  assert.deepEqual([stdout, stderr], ['live sse\n', '']);
  assert.ok(Date.now() - begun < 5000, `${Date.now() - begun} ms`);
});

test('the script is small, and its version is the package’s', () => {
  const source = readFileSync(new URL('../realtime.js', import.meta.url));
  const size = gzipSync(source, { level: 9 }).length;
  console.log(`realtime.js: ${source.length} bytes, ${size} gzipped`);
  assert.ok(size <= 12 * 1024, `${size} bytes gzipped`);
  assert.equal(JSON.parse(readFileSync(new URL('../package.json', import.meta.url))).version, VERSION);
});
