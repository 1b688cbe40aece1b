// What breaks, and how it comes back.
import test from 'node:test';
import assert from 'node:assert/strict';
import { FakeNode, mint, until } from './fake-node.js';
import { Realtime, audit, back, setup, silence } from './setup.js';

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

test('a Redis whose clock is behind: the proof goes back with it, so that a live event since then is not taken for known', async (t) => {
  const { node, rt, live } = await setup(t, {}, { transports: ['websocket'] });
  const a = audit(rt, 'comments:42');
  await live();
  await a.followed();
  const resumed = async () => {
    rt.simulate({ drop: true });
    const before = node.connects.length;
    await until('it comes back', () => node.connects.length > before);
    await live();
    return node.connects.at(-1).resume.at;
  };
  const heard = new Set();
  rt.onMessage(({ message }) => heard.add(message.n));
  const positions = { 'comments:42': node.head('comments:42') };
  for (const [n, [reason, told, kept]] of [['gap', 9e12, 9e12], ['gap', 8e12, 9e12], ['redis-changed', 400, 400], ['gap', 300, 400], ['live', 350, 350]].entries()) {
    node.provenAt = told;
    node.tell({ type: 'resync', topics: ['comments:42'], reason, spread_ms: 0, at: told, positions, n });
    await until('it is heard', () => heard.has(n));
    assert.equal(await resumed(), kept, reason);
  }
});

test('the proof of the topics that fit into `connect` is not that of the rest, until those are answered', async (t) => {
  const { node, rt, live } = await setup(t, { provenAt: 1000 }, { transports: ['websocket'] });
  const all = Array.from({ length: 700 }, (_, n) => audit(rt, `comments:a-rather-long-key-of-this-topic-${n}`));
  await live();
  for (const one of all) await one.followed();
  Object.assign(node, { provenAt: 5000, subscribes: false });
  const back = async (times) => {
    rt.simulate({ drop: true });
    await until('it comes back', () => node.connects.length > times);
    await live();
    return node.connects.at(-1).resume.at;
  };
  assert.equal(await back(1), 1000);
  await until('it asks for the rest', () => node.sent.at(-1).resume?.at === 1000 && node.sent.at(-1).type === 'subscribe');
  assert.equal(await back(2), 1000, 'the rest was not answered');
  node.subscribes = true;
  await back(3);
  await until('all is answered, and it is proven', () => rt.status.state === 'live' && node.sent.filter((m) => m.type === 'subscribe').length > 2);
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

test('a message that is too big for a node is said in smaller ones', async (t) => {
  const { node, rt, live } = await setup(t, { most: 3000 });
  const audits = Array.from({ length: 100 }, (_, n) => audit(rt, `comments:a-name-of-some-length-${n}`));
  await live();
  for (const a of audits) await a.followed();
  assert.ok(node.counts.websocket > 1 && node.counts.websocket < 10, `${node.counts.websocket} connections`);
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

test('publishers that are late are told, in a state that stays live, and forgotten with the link', async (t) => {
  const { node, rt, live } = await setup(t, {}, { transports: ['websocket'] });
  await live();
  const lates = [];
  rt.onStatus(({ state, late }) => lates.push(`${state} ${late.map((l) => l.source)}`));
  const late = [{ source: 'cms', since: '2026-11-21T22:30:00Z' }];
  node.tell({ type: 'status', live: true, since: '2026-11-21T22:30:09Z', late });
  await until('told', () => rt.status.late.length === 1);
  assert.deepEqual(rt.status.late, late);
  node.tell({ type: 'status', live: true, since: '2026-11-21T22:30:09Z' });
  node.tell({ type: 'status', live: true, since: '2026-11-21T22:31:09Z', late: [] });
  await until('over', () => rt.status.late.length === 0);
  node.tell({ type: 'status', live: true, since: '2026-11-21T22:31:09Z', late });
  await until('told again', () => rt.status.late.length === 1);
  rt.simulate({ drop: true });
  await until('nothing in the new welcome', () => lates.length === 6);
  assert.deepEqual(lates, ['live ', 'live cms', 'live ', 'live cms', 'stale ', 'live ']);
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

test('`replayed` ends with what was missed, even before the node has a newer proof', async (t) => {
  const { node, a } = await back(t, { provenAt: Date.now() });
  await until('the missed one', () => a.events.length === 2);
  await until('the pong behind it', () => node.sent.some((m) => m.type === 'ping'));
  await new Promise((go) => setTimeout(go, 30));
  node.publish('comments:42', { type: 'x.y', n: 3 });
  await until('the next one', () => a.events.length === 3);
  assert.deepEqual(a.replayed, [false, true, false]);
});

test('what was missed during a long absence is `replayed`, though the node has a newer proof by then', async (t) => {
  const { node, rt, live } = await setup(t, { provenAt: Date.now() - 60_000 });
  const a = audit(rt, 'comments:42');
  await live();
  await a.followed();
  rt.simulate({ offline: true });
  node.publish('comments:42', { type: 'x.y', n: 1 });
  node.provenAt = Date.now();
  rt.simulate({});
  await until('the missed one', () => a.events.length === 1);
  await until('the pong behind it', () => node.sent.some((m) => m.type === 'ping'));
  assert.deepEqual(a.replayed, [true]);
});
