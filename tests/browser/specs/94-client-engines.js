// The core of the client in Firefox and in WebKit: each transport, one connection for all tabs, a cut, refusals, signing out, closing.
import assert from 'node:assert/strict';
import { test, until } from '../lib/harness.js';
import { node } from '../lib/rig.js';
import { front } from '../lib/front.js';
import { firefox, webkit } from '../lib/engines.js';

/** A page with a Realtime that notes what it is told. */
async function open(browser, site, options = {}, topics = ['comments:42']) {
  const page = await browser.open(`${site.origin}/page`);
  await page.run(async (options, topics) => {
    const { Realtime } = await import('/realtime/realtime.js');
    const noted = window.noted = { events: [], resyncs: [], refused: [], states: [] };
    const rt = window.rt = new Realtime({ ...options, token: async () => (await (await fetch('/token')).text()) || null });
    rt.onStatus(({ state, transport, reason }) => noted.states.push([state, transport, reason].join(' ')));
    rt.addEventListener('refused', (e) => noted.refused.push(`${e.detail.topic} ${e.detail.code}`));
    for (const topic of topics) { rt.on(topic, (e) => noted.events.push(e.data.n)); rt.onResync(topic, (about) => noted.resyncs.push(`${about.topic} ${about.reason}`)); }
  }, options, topics);
  const noted = () => page.run(() => window.noted);
  return Object.assign(page, {
    noted,
    becomes: (state, ms = 20_000) => until(`the state is ${state}`, async () => { const { states } = await noted(); if (states.at(-1)?.startsWith(state)) return true; throw new Error(states.join(', ')); }, ms),
    has: (n) => until(`event ${n} arrives`, async () => (await noted()).events.includes(n)),
  });
}

for (const [name, launch] of [['Firefox', firefox], ['WebKit', webkit]]) {
  for (const transport of ['websocket', 'sse', 'poll']) {
    test(`${name}, ${transport}: live, shared by two tabs, resumed after a cut, ended by close()`, async (t) => {
      const a = await node(t, 'a'), site = await front(t, a), browser = await launch(t);
      const publish = (n) => a.publish('comments:42', { type: 'comment.created', data: { n } });
      const first = await open(browser, site, { transports: [transport] });
      await first.becomes(`live ${transport}`);
      const second = await open(browser, site, { transports: [transport] }, ['comments:42', 'comments:a,b']);
      await second.becomes(`live ${transport}`);
      if (transport !== 'poll') assert.equal((await a.sessions()).total, 1, 'one connection for both tabs');
      await until('followed', async () => (await second.noted()).resyncs.length === 1);
      await publish(1);
      await first.has(1);
      await second.has(1);
      site.cut();
      await publish(2);
      await first.has(2);
      await second.has(2);
      assert.deepEqual((await second.noted()).refused, ['comments:a,b bad-topic']);
      assert.deepEqual((await first.noted()).refused, []);
      assert.deepEqual((await first.noted()).resyncs, ['comments:42 subscribed'], 'resumed, not read again');
      await first.run(() => window.rt.close());
      await publish(3);
      await second.has(3);
      await second.run(() => window.rt.close());
      await until('no session is left', async () => (await a.sessions()).total === 0, 15_000);
    });
  }

  test(`${name}: the ladder down to SSE; signed out, and in again by another tab`, async (t) => {
    const a = await node(t, 'a'), site = await front(t, a, { upgrade: (req, socket) => { socket.end('HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n'); return true; } });
    const browser = await launch(t);
    site.user = null;
    const first = await open(browser, site);
    await first.becomes('off  signed-out');
    site.user = 'anna';
    const second = await open(browser, site);
    await second.becomes('live sse');
    await first.becomes('live sse');
    assert.equal((await a.sessions()).total, 1);
  });
}
