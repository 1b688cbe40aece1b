// Tokens and refusals.
import test from 'node:test';
import assert from 'node:assert/strict';
import { FakeNode, mint, until } from './fake-node.js';
import { Realtime, audit, setup, silence, workers } from './setup.js';

test('tokens: refused with 4401, a new one is fetched', async (t) => {
  const said = silence(t);
  const made = [];
  const { live } = await setup(t, {}, { token: async () => { made.push(1); return mint('anna', made.length < 3 ? -100 : 600); } });
  await live();
  assert.equal(made.length, 3);
  assert.deepEqual(said, ['[carillon] The node refuses the token.'], 'said, and once');
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
  await until('a fresh token', () => node.sent.some((m) => m.type === 'token'));
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
  await until('a fresh token', () => node.sent.some((m) => m.type === 'token'));
  assert.ok(asked <= 2, `${asked} tabs were asked`);
  assert.equal(tabs[0].status.state, 'live');
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
