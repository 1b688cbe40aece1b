// Switches of the server, security policies, origins, and one connection for ten tabs.
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WebSocket } from 'ws';
import { test, until, pause } from '../lib/harness.js';
import { redis, node, nginx } from '../lib/rig.js';
import { context, pane, picture, settled, watch } from '../lib/browser.js';

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
  const shared = await pane(await context(t), a.base, 'bilal');
  await shared.live('SSE');
  const { by_transport } = await a.sessions();
  assert.deepEqual(by_transport, { ...by_transport, websocket: 0, sse: 2 }, 'nor by a worker');
  await picture(shared.page, 'rules-without-websocket');
});

test('every transport off: the notice, nothing opened, and a refresh by hand works', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t), WEBSOCKET__ENABLED: false, SSE__ENABLED: false, POLL__ENABLED: false });
  const anna = await quietPane(t, a.base, 'anna', '&shared=0');
  await anna.becomes('off');
  assert.equal(await anna.text('#badge-text'), 'Off');
  assert.match(await anna.text('#notice-text'), /switched off on the server.*manual refresh/);
  await until('the page is there all the same', async () => (await anna.comments()).length === 5);
  await picture(anna.page, 'rules-all-off');
  await a.api('projects/42/comments', { editor: 'bilal', text: 'By hand' });
  await pause(1500);
  assert.equal((await anna.comments()).some((c) => c.includes('By hand')), false);
  await anna.page.getByRole('button', { name: 'Refresh' }).click();
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
    if (transport === 'websocket') {
      const socket = new WebSocket(`${stranger.base.replace('http', 'ws')}/realtime`, { headers: { Origin: site.origin } });
      const status = await new Promise((go) => { socket.on('unexpected-response', (_, answer) => go(answer.statusCode)); socket.on('open', () => go('open')); socket.on('error', () => {}); });
      assert.equal(status, 403);
    } else {
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
  await until('no session is left', async () => (await counted(a)) === 0, 20_000);    // kept for a next page for ten seconds
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

test('signing out and in as another user: the open tab moves over, and nothing of the first user comes any more', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t) });
  const ctx = await context(t);
  let user = 'anna';    // whom the CMS' cookie names
  const asWhom = (page) => page.route('**/demo/api/token', async (route) => route.fulfill({ json: await a.api('token', { editor: user, ttl: 6 }) }));
  const open = async () => {
    const page = await ctx.newPage();
    await asWhom(page);
    return watch(page, () => page.goto(`${a.base}/demo/pane.html?editor=${user}`));
  };
  const old = await open();
  await old.live('WebSocket');
  await a.api('notify', { editor: 'chiyo', to: 'anna', text: 'While she was there' });
  await until('it came', async () => (await old.unread()) === 2);
  user = 'bilal';
  const fresh = await open();
  await fresh.live('WebSocket');
  const refused = () => old.said.some((s) => s.includes('“notifications:anna” is not followed: forbidden'));
  await until('the old tab has become his, too, asks for what was hers, and is refused', refused, 15_000);
  await until('one session is left', async () => (await counted(a)) === 1);
  const before = (await old.raw('event')).length;
  await a.publish('notifications:anna', { type: 'notification.created', data: { unread: 9 } });
  await a.api('projects/42/comments', { editor: 'chiyo', text: 'For the new user' });
  await old.shows('For the new user');
  await fresh.shows('For the new user');
  for (const tab of [old, fresh]) {
    const events = (await tab.raw('event')).slice(0, tab === old ? -before || undefined : undefined);    // newest first
    assert.deepEqual(events.filter((m) => m.topic === 'notifications:anna'), []);
  }
  const welcome = [...await fresh.raw('welcome'), ...await old.raw('welcome')].find((m) => m.user === 'bilal');    // whichever came first
  assert.deepEqual(Object.keys(welcome.positions).filter((topic) => /anna/.test(topic)), []);
});

test('a worker of an older release in an open tab goes on working beside the new one; one of another language is left alone', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t) });
  const dir = mkdtempSync(join(tmpdir(), 'carillon-older-'));
  chmodSync(dir, 0o755);    // nginx reads it as somebody else
  t.after(() => rmSync(dir, { recursive: true }));
  const source = readFileSync(new URL('../../../client/realtime.js', import.meta.url), 'utf8');
  const [, current] = source.match(/="(\d+\.\d+\.\d+)"/);
  const release = (version, language) => {
    const text = source.replace(`"${current}"`, `"${version}"`).replace('"port-2"', `"port-${language}"`);
    assert.notEqual(text, source);
    writeFileSync(join(dir, `${version}-${language}.js`), text);
    return `location = /realtime/realtime.js { alias ${dir}/${version}-${language}.js; types { text/javascript js; } add_header Cache-Control no-cache; }`;
  };
  const rest = `location / { proxy_pass ${a.base}; proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade; }`;
  const front = await nginx(t, release('0.0.9', 2) + rest);
  const roll = async (text) => {
    front.mend(text + rest);
    const [, version = ''] = text.match(/([\d.]+-\d)\.js/) ?? [];
    const wanted = version ? readFileSync(join(dir, `${version}.js`), 'utf8') : source;
    await until('the release is rolled out', async () => (await (await fetch(`${front.base}/realtime/realtime.js`)).text()) === wanted);
  };
  const ctx = await context(t);
  const older = await pane(ctx, front.base, 'anna', '&ttl=8');
  await older.live('WebSocket');
  await roll('');
  const newer = await pane(ctx, front.base, 'anna', '&ttl=8');
  await newer.live('WebSocket');
  assert.equal(await counted(a), 2, 'each release has a worker of its own');
  await roll(release(current, 3));    // the newer one's name, but another language
  const other = await pane(ctx, front.base, 'anna', '&ttl=8');
  await other.live('WebSocket', 15_000);
  assert.equal(await counted(a), 3, 'it connects by itself');
  const renewed = async (tab) => (await tab.raw('token-accepted')).length;
  await until('the older one renews its token', async () => (await renewed(older)) >= 1, 15_000);
  await a.api('projects/42/comments', { editor: 'bilal', text: 'To all releases' });
  for (const tab of [older, newer, other]) { await tab.shows('To all releases'); assert.equal(await tab.state(), 'live'); }
  await newer.page.close();
  await other.page.close();
  await a.api('projects/42/comments', { editor: 'bilal', text: 'To the older one' });
  await older.shows('To the older one');
  await settled(older, a, 'anna');
});
