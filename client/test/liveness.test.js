// Links that die without a word. These tests wait for seconds, side by side.
import test from 'node:test';
import assert from 'node:assert/strict';
import { until } from './fake-node.js';
import { audit, setup, silence } from './setup.js';

test('links that say nothing, are cut when idle, or lose their node', { concurrency: true }, async (t) => {
  silence(t);
  await Promise.all([
    t.test('a dead link that says nothing is found by the own ping', async (t) => {
      const { node, rt, live } = await setup(t, { heartbeat: 1 });
      await live();
      node.pongs = false;
      await until('stale', () => rt.status.state === 'stale');
      node.pongs = true;
      await live();
    }),
    t.test('an idle cut is learned: pings come before it', async (t) => {
      const { node, rt, live } = await setup(t);
      await live();
      const cut = async () => { await new Promise((go) => setTimeout(go, 2700)); [...node.sessions][0].cut(); await until('stale', () => rt.status.state === 'stale'); await live(); };
      await cut();
      await cut();
      await until('a ping', () => node.sent.some((m) => m.type === 'ping'));
    }),
    t.test('long-poll behind a proxy that cuts: goes on while there is a node behind it, says so when there is none', async (t) => {
      const { node, rt, live } = await setup(t, { pollMode: 'cut' }, { transports: ['poll'] });
      const a = audit(rt, 'comments:42');
      await live('poll');
      await a.followed();
      await until('cut and asked again', () => node.counts.poll >= 3);
      assert.equal(rt.status.state, 'live');
      node.configMode = '502';
      await until('it is told', () => rt.status.state === 'stale');
      node.publish('comments:42', { type: 'x.y', n: 1 });
      node.pollMode = node.configMode = 'ok';
      await live('poll');
      await until('what was missed', () => a.events.length === 1);
      assert.deepEqual(a.resyncs, ['comments:42 subscribed']);
    }),
  ]);
});
