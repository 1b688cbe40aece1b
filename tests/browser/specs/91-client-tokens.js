// Who is signed in, and what they may follow: sessions that end, tokens that are none, rights that come and go.
import assert from 'node:assert/strict';
import { test, until, pause } from '../lib/harness.js';
import { node } from '../lib/rig.js';
import { context } from '../lib/browser.js';
import { arrives, becomes, front, join, mint, noted, status, visit } from '../lib/front.js';

const HTML = `<!doctype html><title>Sign in</title>${'<p>Who are you?</p>'.repeat(5000)}`;
const answer = (type, body, code = 200) => (req, res, url) => { if (url.pathname !== '/token') return false; res.writeHead(code, { 'content-type': type }).end(body); return true; };

for (const [what, hook, said] of [
  ['an empty answer', answer('text/plain', ''), /token\(\) gave an empty answer/],
  ['the sign-in page', answer('text/html', HTML), /an HTML page: is the session over\?/],
  ['a JSON document', answer('application/json', '{"token":"x"}'), /a JSON document/],
]) {
  for (const shared of [true, false]) {
    test(`the token endpoint gives ${what}${shared ? '' : ', not shared'}: stale with its reason, said once, and live again after signing in`, async (t) => {
      const a = await node(t, 'a'), site = await front(t, a);
      const page = await visit(t, site);
      await join(page, { shared });
      await becomes(page, 'live');
      site.hook = hook;
      await page.evaluate(() => rt.simulate({ drop: true }));
      site.cut();
      await a.stop('SIGKILL');
      const again = await node(t, 'a', { port: a.port });
      await page.evaluate(() => rt.simulate({}));
      // The token of the connection is good until the node says otherwise: a new page has none.
      const second = await visit(t, site, { ctx: page.context() });
      await join(second, { shared: false });
      await becomes(second, 'stale', { reason: 'token' });
      await until('it is said', () => second.said.some((line) => said.test(line)));
      assert.equal(second.said.filter((line) => said.test(line)).length, 1);
      assert.ok(!second.said.some((line) => line.includes('Who are you')), 'not what it was');
      site.hook = null;
      await becomes(second, 'live', {}, 40_000);
      await becomes(page, 'live', {}, 40_000);
      await arrives(page, again);
      await arrives(second, again);
    });
  }
}

test('a text that is no JWT is refused by the node, and the console says what it is', async (t) => {
  const site = await front(t, await node(t, 'a'), { hook: answer('text/plain', 'opaque-0123456789') });
  const page = await visit(t, site);
  await join(page, { user: 'anna' });
  await becomes(page, 'stale', { reason: 'token' });
  await until('it is said', () => page.said.some((line) => /refuses the token, which is no JWT/.test(line)));
  assert.ok(!page.said.some((line) => line.includes('0123456789')), 'but not the token itself');
});

for (const how of ['answers null', 'throws SignedOut']) {
  test(`token() ${how}: off, signed-out; connect() or another tab's sign-in ends it`, async (t) => {
    const a = await node(t, 'a'), site = await front(t, a);
    const ctx = await context(t);
    const open = async () => {
      const page = await visit(t, site, { ctx });
      await page.evaluate(async (how) => {
        const { Realtime } = await import('/realtime/realtime.js');
        window.calls = 0;
        window.rt = new Realtime({ token: async () => {
          window.calls++;
          const token = await (await fetch('/token')).text();
          if (token) return token;
          if (how === 'answers null') return null;
          throw new Realtime.SignedOut();
        } });
        window.rt.on('comments:42', () => {});
      }, how);
      return page;
    };
    site.user = null;
    const page = await open();
    await becomes(page, 'off', { reason: 'signed-out' });
    const calls = await page.evaluate(() => window.calls);
    await pause(1500);
    assert.equal(await page.evaluate(() => window.calls), calls, 'nobody is asked any more');
    site.user = 'anna';
    const other = await open();
    await becomes(other, 'live');
    await becomes(page, 'live', { user: 'anna' });
    assert.equal((await a.sessions()).total, 1);
    // And by hand.
    site.user = null;
    const third = await open();
    await becomes(third, 'off', { reason: 'signed-out' });
    site.user = 'bilal';
    await third.evaluate(() => rt.connect());
    await becomes(third, 'live', { user: 'bilal' });
  });
}

test('a topic that is refused in one tab is told to that tab only, and is asked for again when there is room', async (t) => {
  const a = await node(t, 'a', { LIMITS__TOPICS_PER_SESSION: 3 }), site = await front(t, a);
  const ctx = await context(t);
  const first = await visit(t, site, { ctx }), second = await visit(t, site, { ctx });
  await join(first, {}, ['comments:1', 'comments:2', 'comments:3']);
  await becomes(first, 'live');
  await until('followed', async () => (await noted(first)).resyncs.length === 3);
  await join(second, {}, ['comments:4']);
  await until('refused', async () => (await noted(second)).refused.length === 1);
  assert.deepEqual((await noted(second)).refused[0], { topic: 'comments:4', code: 'too-many' });
  assert.deepEqual((await noted(first)).refused, []);
  await first.close();
  await arrivesAtLast(second, a, 'comments:4');
});

/** A topic that is followed some time: then its events arrive. */
async function arrivesAtLast(page, a, topic) {
  await until(`${topic} is followed`, async () => (await noted(page)).resyncs.some((r) => r.topic === topic), 30_000);
  await arrives(page, a, topic);
}

test('rights that a newer token brings: the refused topic is followed', async (t) => {
  const a = await node(t, 'a'), site = await front(t, a);
  Object.assign(site, { ttl: 8, topics: ['comments:1'] });
  const page = await visit(t, site);
  await join(page, {}, ['comments:1', 'comments:2']);
  await until('refused', async () => (await noted(page)).refused.some((r) => r.topic === 'comments:2' && r.code === 'forbidden'));
  site.topics = ['comments:1', 'comments:2'];
  await arrivesAtLast(page, a, 'comments:2');
});

for (const transport of ['websocket', 'sse', 'poll']) {
  test(`tokens per page, one connection (${transport}): token() is told what is followed, and both pages get theirs`, async (t) => {
    const a = await node(t, 'a'), site = await front(t, a);
    site.hook = async (req, res, url) => {
      if (url.pathname !== '/token-for') return false;
      res.writeHead(200).end(mint('anna', url.searchParams.get('topics').split(',')));
      return true;
    };
    const ctx = await context(t);
    const open = async (topic) => {
      const page = await visit(t, site, { ctx });
      await page.evaluate(async ([topic, transport]) => {
        const { Realtime } = await import('/realtime/realtime.js');
        const noted = window.noted = { states: [], events: [], resyncs: [], refused: [] };
        const rt = window.rt = new Realtime({ transports: [transport], token: async ({ topics }) => (await fetch(`/token-for?topics=${[topic, ...topics]}`)).text() });
        rt.on(topic, (e, about) => noted.events.push({ ...about, n: e.data.n }));
        rt.onResync(topic, (about) => noted.resyncs.push(about));
      }, [topic, transport]);
      await becomes(page, 'live');
      return page;
    };
    const first = await open('comments:1');
    await arrivesAtLast(first, a, 'comments:1');
    const second = await open('comments:2');
    await arrivesAtLast(second, a, 'comments:2');
    await arrives(first, a, 'comments:1');
    if (transport !== 'poll') assert.equal((await a.sessions()).total, 1);
  });
}

test('signing out by a page load, and somebody else signs in: nothing of the former', async (t) => {
  const a = await node(t, 'a'), site = await front(t, a);
  const ctx = await context(t);
  const page = await visit(t, site, { ctx });
  await join(page, {}, ['notifications:anna', 'comments:42']);
  await becomes(page, 'live', { user: 'anna' });
  site.user = 'bilal';
  await page.goto(`${site.origin}/page?signed-out`);
  await join(page, { start: { token: mint('bilal') } }, ['comments:42']);
  const { user } = await becomes(page, 'live');
  assert.equal(user, 'bilal');
  await a.publish('notifications:anna', { type: 'notification.created', data: { n: 1 } });
  await arrives(page, a, 'comments:42');
  assert.ok((await noted(page)).events.every((e) => e.topic === 'comments:42'));
  await until("the former's session has ended", async () => (await a.sessions()).total === 1, 20_000);
  assert.equal((await status(page)).state, 'live');
});
