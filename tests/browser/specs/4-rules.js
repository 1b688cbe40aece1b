// Switches of the server, security policies, origins, and one connection for ten tabs.
import assert from 'node:assert/strict';
import http from 'node:http';
import { test, until, pause } from '../lib/harness.js';
import { redis, node } from '../lib/rig.js';
import { context, pane, settled } from '../lib/browser.js';

/** Everything that the page's own network log saw. */
function network(page) {
  const urls = [], sockets = [];
  page.on('request', (r) => urls.push(r.url()));
  page.on('websocket', (w) => sockets.push(w.url()));
  return { urls, sockets, opened: () => urls.filter((u) => /\/realtime\/(events|poll)/.test(u)) };
}
async function quietPane(t, base, editor, query) {
  const ctx = await context(t);
  const page = await ctx.newPage();
  const log = network(page);
  const { watch } = await import('../lib/browser.js');
  const screen = await watch(page, () => page.goto(`${base}/demo/pane.html?editor=${editor}${query}`));
  return { ...screen, log };
}
const counted = async (a) => (await a.sessions()).total;

test('websocket.enabled=false: none is opened, SSE serves', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t), WEBSOCKET__ENABLED: false });
  const anna = await quietPane(t, a.base, 'anna', '&shared=0');
  await anna.live('SSE', 5500);
  await a.api('projects/42/comments', { editor: 'bilal', text: 'By SSE' });
  await anna.shows('By SSE');
  await anna.page.evaluate(() => window.dispatchEvent(new Event('online')));
  await pause(2500);
  await anna.live('SSE');
  assert.deepEqual(anna.log.sockets, []);
  assert.deepEqual(anna.said.filter((s) => s.includes('[carillon]')), []);
  await settled(anna, a, 'anna');
});

test('every transport off: the notice, nothing opened, and a refresh by hand works', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t), WEBSOCKET__ENABLED: false, SSE__ENABLED: false, POLL__ENABLED: false });
  const anna = await quietPane(t, a.base, 'anna', '&shared=0');
  await anna.becomes('off');
  assert.equal(await anna.text('#badge-text'), 'Off');
  assert.match(await anna.text('#notice-text'), /switched off on the server.*manual refresh/);
  await until('the page is there all the same', async () => (await anna.comments()).length === 5);
  await a.api('projects/42/comments', { editor: 'bilal', text: 'By hand' });
  await pause(1500);
  assert.equal((await anna.comments()).some((c) => c.includes('By hand')), false);
  await anna.page.getByRole('button', { name: 'Refresh now' }).click();
  await anna.shows('By hand');
  assert.deepEqual([anna.log.sockets, anna.log.opened()], [[], []]);
});

test('a strict policy: no inline, no blob, no eval; the worker runs all the same', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t) });
  const answer = await fetch(`${a.base}/demo/pane.html`);
  const policy = answer.headers.get('content-security-policy');
  assert.match(policy, /default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe|blob/);
  const ctx = await context(t);
  const anna = await pane(ctx, a.base, 'anna');
  await anna.live('WebSocket');
  const second = await pane(ctx, a.base, 'anna');
  await second.live('WebSocket');
  assert.equal(await counted(a), 1, 'so they share a worker');
  await anna.comment('Under a strict policy');
  await second.shows('Under a strict policy');
  assert.deepEqual([...anna.broken, ...second.broken], []);
});

/** A site on an origin of its own, whose page uses a node elsewhere. */
async function elsewhere(t, transport) {
  const site = { node: null };
  const server = http.createServer(async (req, res) => {
    const base = site.node.base;
    const [type, body] = req.url === '/page.js'
      ? ['text/javascript', `import { Realtime } from '${base}/realtime/realtime.js';
        const rt = window.rt = new Realtime({ url: '${base}/realtime', token: async () => (await (await fetch('/token')).json()).token, transports: ['${transport}'] });
        window.events = [];
        rt.on('comments:42', (e) => window.events.push(e.type));
        rt.onStatus((s) => { document.title = s.state + ' ' + s.transport; });`]
      : req.url === '/token' ? ['application/json', JSON.stringify(await site.node.api('token', { editor: 'anna' }))]
        : ['text/html', '<!doctype html><title>-</title><script type="module" src="/page.js"></script>'];
    res.writeHead(200, { 'content-type': type }).end(body);
  }).listen(0, '127.0.0.1');
  t.after(() => { server.close(); server.closeAllConnections(); });
  await until('the site listens', () => server.listening);
  site.origin = `http://127.0.0.1:${server.address().port}`;
  site.page = await (await context(t)).newPage();
  return site;
}

for (const transport of ['websocket', 'sse', 'poll']) {
  test(`from another origin by ${transport}: served where it is allowed, refused where it is not`, async (t) => {
    const r = await redis(t);
    const site = await elsewhere(t, transport);
    site.node = await node(t, 'friend', { redis: r, HTTP__ALLOWED_ORIGINS: site.origin });
    await site.page.goto(site.origin);
    await until('live', async () => (await site.page.title()) === `live ${transport}`, 8000);
    await until('an event', async () => { await site.node.publish('comments:42', { type: 'comment.created' }); await pause(200); return (await site.page.evaluate(() => window.events.length)) > 0; });

    const stranger = await node(t, 'stranger', { redis: r, HTTP__ALLOWED_ORIGINS: 'https://cms.example' });
    // Its script is not given to the page either; with that of the friend it still comes to nothing.
    const token = (await stranger.api('token', { editor: 'anna' })).token;
    const outcome = await site.page.evaluate(async ([base, kind, token]) => {
      if (kind === 'websocket') return new Promise((go) => { const s = new WebSocket(`${base.replace('http', 'ws')}/realtime`); s.onopen = () => go('open'); s.onerror = () => go('refused'); });
      return fetch(`${base}/realtime/${kind === 'sse' ? 'events' : 'poll'}?topics=comments:42&token=${token}`).then(() => 'open', () => 'refused');
    }, [stranger.base, transport, token]);
    assert.equal(outcome, 'refused');
    site.node = stranger;
    await site.page.goto(site.origin);
    await pause(2500);
    assert.equal(await site.page.title(), '-', 'not even its script is given');
    assert.equal(await counted(stranger), 0);
    if (transport !== 'websocket') {
      const plain = await fetch(`${stranger.base}/realtime/${transport === 'sse' ? 'events' : 'poll'}?topics=comments:42&token=${token}`, { headers: { Origin: site.origin } });
      await plain.body?.cancel();
      assert.equal(plain.status, 403);
    }
  });
}

test('ten tabs, one connection; the first tab closes, the others go on; the last ends it', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t) });
  const ctx = await context(t);
  const tabs = [];
  for (let n = 0; n < 10; n++) tabs.push(await pane(ctx, a.base, 'anna'));
  for (const tab of tabs) await tab.live('WebSocket');
  assert.equal(await counted(a), 1);
  await a.api('projects/42/comments', { editor: 'bilal', text: 'To all ten' });
  for (const tab of tabs) await tab.shows('To all ten');
  await tabs[0].page.close();
  await a.api('projects/42/comments', { editor: 'bilal', text: 'To the other nine' });
  for (const tab of tabs.slice(1)) { await tab.shows('To the other nine'); assert.equal(await tab.state(), 'live'); }
  assert.equal(await counted(a), 1);
  await tabs[1].comment('From the second tab to the third');
  await tabs[2].shows('From the second tab to the third');
  for (const tab of tabs.slice(1)) await tab.page.close();
  await until('no session is left', async () => (await counted(a)) === 0, 8000);
});

test('a tab that crashes does not hold the others up', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t) });
  const ctx = await context(t);
  const first = await pane(ctx, a.base, 'anna', '&ttl=8');
  await first.live();
  const second = await pane(ctx, a.base, 'anna', '&ttl=8');
  await second.live();
  await first.page.goto('chrome://crash').catch(() => {});
  await pause(9000);    // the token of both has ended since: the second alone renewed it
  assert.equal(await second.state(), 'live');
  await a.api('projects/42/comments', { editor: 'bilal', text: 'After the crash' });
  await second.shows('After the crash');
});

test('another user in the same browser: another connection, and nothing of the first', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t) });
  const ctx = await context(t);
  const anna = await pane(ctx, a.base, 'anna');
  const bilal = await pane(ctx, a.base, 'bilal');
  await anna.live();
  await bilal.live();
  assert.equal(await counted(a), 2);
  await a.api('notify', { editor: 'chiyo', to: 'anna', text: 'For Anna alone' });
  await until('it came', async () => (await anna.unread()) === 2);
  await a.api('projects/42/comments', { editor: 'chiyo', text: 'For both' });
  await bilal.shows('For both');
  assert.doesNotMatch(await bilal.page.content(), /notifications:anna|For Anna alone/);
});
