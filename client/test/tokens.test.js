// Tokens and refusals.
import test from 'node:test';
import assert from 'node:assert/strict';
import { FakeNode, mint, until } from './fake-node.js';
import { Realtime, audit, setup, silence, workers } from './setup.js';

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
