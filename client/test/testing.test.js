// The fake for tests of pages: it plays events, resyncs, states and refusals, and asks nobody.
import test from 'node:test';
import assert from 'node:assert/strict';
import { FakeRealtime } from '../testing.js';
import { until } from './fake-node.js';

test('a page without a node: events, resyncs, states, refusals', async (t) => {
  const asked = t.mock.method(globalThis, 'fetch', () => { throw new Error('nothing may be asked'); });
  t.mock.method(console, 'warn', () => {});
  const rt = new FakeRealtime({ state: 'connecting' });
  const events = [], resyncs = [], states = [], refused = [];
  rt.on('comments:42', (event, { topic }) => events.push(`${topic} ${event.type}`));
  rt.onResync('comments:42', ({ reason }) => resyncs.push(reason));
  rt.on('secret:1', () => {});
  rt.onStatus(({ state }) => states.push(state));
  rt.addEventListener('refused', (e) => refused.push(e.detail));
  await new Promise((go) => setTimeout(go, 20));
  assert.deepEqual([states, resyncs], [['connecting'], []]);
  rt.playRefusal('secret:1');
  rt.playState('live');
  assert.equal((await rt.ready()).state, 'live');
  rt.playEvent('comments:42', { type: 'comment.created' });
  rt.playEvent('comments', { type: 'comment.deleted' });
  rt.playEvent('comments:43', { type: 'comment.created' });
  rt.playEvent('comments:42', { type: 'comment.created', origin: rt.id });
  rt.playResync('comments:42', 'trimmed');
  await until('the resync', () => resyncs.length === 2);
  rt.playState('stale', { reason: 'redis' });
  rt.connect();
  rt.onResync('comments:44', ({ topic }) => resyncs.push(topic));
  await until('a later topic is followed, too', () => resyncs.length === 3);
  rt.close();
  assert.deepEqual(events, ['comments:42 comment.created', 'comments comment.deleted']);
  assert.deepEqual(resyncs, ['subscribed', 'trimmed', 'comments:44']);
  assert.deepEqual(states, ['connecting', 'live', 'stale', 'live', 'off']);
  assert.deepEqual(refused, [{ topic: 'secret:1', code: 'forbidden' }]);
  assert.equal(asked.mock.callCount(), 0);
});
