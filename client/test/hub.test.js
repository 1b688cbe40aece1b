// What tabs of one user share, seen from its ports.
import test from 'node:test';
import assert from 'node:assert/strict';
import { Hub } from '../src/hub.js';
import { now } from '../src/protocol.js';

const FROM = { at: 1, positions: {} };

/** A tab of this hub, whose page says nothing by itself, and what it is sent. */
function tab(hub, { silent = 0 } = {}) {
  const sent = [];
  const port = { postMessage: (m) => sent.push(m), close() {} };
  hub.tabs.set(port, { topics: new Map([['comments:42', { topic: 'comments:42', gen: 1, from: FROM }]]), alive: now() - silent, answers: new Map() });
  return { port, sent };
}

test('a tab that leaves while it waits to be asked for a token is not waited for', async () => {
  const hub = new Hub();
  const { port } = tab(hub);
  let spend;
  const token = hub.token([], () => new Promise((go) => { spend = go; }));
  await new Promise((go) => setTimeout(go, 5));
  hub.leave(port, false);
  spend();
  await assert.rejects(token, /left/);
});

test('a frozen tab is found by any other that lives, and is not waited for', async () => {
  const hub = new Hub();
  const frozen = tab(hub, { silent: 200_000 });
  const token = hub.token([], async () => {});
  await new Promise((go) => setTimeout(go, 5));
  assert.equal(frozen.sent[0].t, 'token');
  const other = tab(hub);
  hub.hear(other.port, { t: 'alive' });
  assert.deepEqual(other.sent, [{ t: 'alive' }]);
  await assert.rejects(token, /left/);
  assert.equal(hub.tabs.size, 1);
});

test('a rendered page is current only where the node sees all, and was not told otherwise', () => {
  for (const [nodeLive, fresh, expected] of [[true, undefined, true], [false, undefined, false], [true, ['comments:42'], false]]) {
    const hub = new Hub();
    hub.link = /** @type {any} */ ({ nodeLive, subscriptions: { isCurrent: () => true } });
    const { sent } = tab(hub);
    hub.emit({ t: 'followed', topics: ['comments:42'], fresh });
    assert.deepEqual(sent, [{ t: 'followed', topic: 'comments:42', gen: 1, resumed: expected }]);
  }
});
