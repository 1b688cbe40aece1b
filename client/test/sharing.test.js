// One connection for many tabs.
import test from 'node:test';
import assert from 'node:assert/strict';
import { FakeNode, mint, until } from './fake-node.js';
import { Realtime, audit, setup, silence, workers } from './setup.js';

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
    await until('live by itself', () => rt.status.state === 'live');
    delete globalThis.SharedWorker;
  }
});

test('SharedWorker refused (cross-origin, CSP): each tab connects by itself', async (t) => {
  globalThis.SharedWorker = class { constructor() { throw new DOMException('no', 'SecurityError'); } };
  t.after(() => { delete globalThis.SharedWorker; });
  const { live } = await setup(t, {}, { shared: true });
  await live('websocket');
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

test('a tab that breaks the connection for a try mends it by leaving', async (t) => {
  workers(t);
  const node = await new FakeNode().listen();
  const make = () => new Realtime({ url: node.url, token: () => mint('anna') });
  const first = make(), second = make();
  t.after(async () => { first.close(); second.close(); await node.kill(); });
  await Promise.all([first.ready(), second.ready()]);
  first.simulate({ offline: true });
  await until('felt by both', () => first.status.state === 'stale' && second.status.state === 'stale');
  first.close();
  await until('live again', () => second.status.state === 'live');
});

test('a flood: 20,000 events come in order, and what is kept of them is bounded', async (t) => {
  workers(t);
  const { node, rt, live } = await setup(t, {}, { shared: true });
  const a = audit(rt, 'comments:42');
  await live();
  await a.followed();
  for (let n = 1; n <= 20_000; n++) { node.publish('comments:42', { type: 'x.y', n }); if (n % 500 === 0) await new Promise((go) => setImmediate(go)); }
  await until('all of them', () => a.events.length === 20_000);
  assert.ok(a.events.every((n, i) => n === i + 1));
});
