// Transports: which is taken, and how they take over from each other.
import test from 'node:test';
import assert from 'node:assert/strict';
import { until } from './fake-node.js';
import { audit, back, setup, silence } from './setup.js';

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
  rt.connection.post({ t: 'poke', why: 'visible' });
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
  await until('not live', () => rt.status.state === 'stale');
  await live();
  rt.simulate({ drop: true });
  await until('not live again', () => rt.status.state === 'stale');
  await live();
  await new Promise((go) => setTimeout(go, 50));
  clearInterval(publishing);
  await until('all events', () => a.events.length >= n);
  assert.deepEqual(a.events, Array.from({ length: n }, (_, i) => i + 1));
  assert.deepEqual(a.resyncs, ['comments:42 subscribed']);
  assert.ok(a.replayed.some(Boolean));
});

test('a node that cannot resume is seen through: resync, never a silent hole', async (t) => {
  const { a } = await back(t, { knowsResume: false });
  await until('resync', () => a.resyncs.includes('comments:42 gap'));
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
