// Tokens that come to their end while the page is open. These tests wait for seconds, side by side.
import test from 'node:test';
import assert from 'node:assert/strict';
import { mint, until } from './fake-node.js';
import { audit, setup, silence } from './setup.js';

test('tokens that come to their end', { concurrency: true }, async (t) => {
  silence(t);
  await Promise.all([
    t.test('tokens: renewed before they end, over the same session', async (t) => {
      let made = 0;
      const { node, rt, live } = await setup(t, {}, { token: async () => { made++; return mint('anna', 10); }, transports: ['websocket'] });
      audit(rt, 'comments:42');
      await live();
      const sockets = node.counts.websocket;
      await until('a fresh token was sent', () => node.sent.some((m) => m.type === 'token'));
      assert.ok(made >= 2);
      assert.equal(node.counts.websocket, sockets);
      assert.equal(rt.status.state, 'live');
    }),
    ...['websocket', 'websocket,sse'].map((block) =>
      t.test(`tokens: with ${block} blocked a short token is renewed and nothing is lost`, async (t) => {
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
      })),
    t.test('a token that is never renewed: no storm of requests', async (t) => {
      const token = mint('anna', 8);
      const { node, live } = await setup(t, {}, { token, transports: ['websocket'] });
      await live();
      await new Promise((go) => setTimeout(go, 9500));
      assert.ok(node.sent.filter((m) => m.type === 'token').length <= 4);
      assert.ok(node.counts.websocket <= 5, `${node.counts.websocket} connects`);
    }),
  ]);
});
