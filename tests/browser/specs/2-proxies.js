// Proxies that stand in the way: the client ends up live in five seconds, by the transport named here, loses nothing over the switch,
// and finds WebSocket again once the proxy is mended.
import assert from 'node:assert/strict';
import { test, until, pause } from '../lib/harness.js';
import { redis, node, nginx, haproxy } from '../lib/rig.js';
import { context, pane, picture, settled } from '../lib/browser.js';

const good = (a) => `location / { proxy_pass ${a.base}; proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade; proxy_buffering off; proxy_read_timeout 120s; }`;

/** Behind a proxy: live in time by this transport, events arrive, and the page equals the CMS after `during`. */
async function behind(t, a, proxy, transport, during = async () => {}) {
  const anna = await pane(await context(t), proxy.base, 'anna');
  await anna.live(transport, 15_000);
  const took = await anna.liveAfter();
  assert.ok(took <= 5000, `live after ${took} ms`);
  await a.api('projects/42/comments', { editor: 'bilal', text: 'First over the proxy' });
  await anna.shows('First over the proxy');
  let n = 0, on = true;
  const writing = (async () => { while (on) { await a.api('projects/42/comments', { editor: 'bilal', text: `Number ${++n}` }); await pause(150); } })();
  try { await during(anna); } finally { on = false; await writing; }
  await anna.shows(`Number ${n}`);
  await settled(anna, a, 'anna');
  assert.deepEqual(await anna.raw('resync'), [], 'everything came as an event');
  return anna;
}
const mended = (proxy, text) => async (anna) => {
  proxy.mend(text);
  await pause(300);
  await anna.page.evaluate(() => window.dispatchEvent(new Event('online')));    // the page came back: ask at once instead of after 15 s
  await anna.live('WebSocket', 12_000);
};

test('nginx without the Upgrade lines: SSE, and WebSocket once it is mended', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t) });
  const proxy = await nginx(t, `location / { proxy_pass ${a.base}; proxy_set_header Host $http_host; }`);
  const anna = await behind(t, a, proxy, 'SSE', async (anna) => {
    await picture(anna.page, 'proxy-sse');
    proxy.mend(good(a));
    await anna.live('WebSocket', 25_000);    // by itself: it asks after 12 to 18 s
    await picture(anna.page, 'proxy-mended');
  });
  assert.equal(anna.said.filter((s) => s.includes('[carillon]')).length, 1, 'one line in the console');
});

test('nginx that drops Upgrade and answers 200: SSE, and WebSocket once it is mended', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t) });
  const proxy = await nginx(t, `location = /realtime { default_type text/html; return 200 "<h1>The CMS</h1>"; } location / { proxy_pass ${a.base}; proxy_set_header Host $http_host; }`);
  await behind(t, a, proxy, 'SSE', mended(proxy, good(a)));
});

test('nginx that drops Upgrade and buffers, whatever it is told: long-poll, and WebSocket once it is mended', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t) });
  const proxy = await nginx(t, `location / { proxy_pass ${a.base}; proxy_set_header Host $http_host; proxy_buffering on; proxy_ignore_headers X-Accel-Buffering; proxy_buffers 8 64k; proxy_buffer_size 64k; gzip on; gzip_types text/event-stream; gzip_proxied any; gzip_min_length 1; }`);
  await behind(t, a, proxy, 'long-poll', async (anna) => { await picture(anna.page, 'proxy-long-poll'); await mended(proxy, good(a))(anna); });
});

test('nginx that buffers but lets Upgrade through: WebSocket', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t) });
  const proxy = await nginx(t, `location / { proxy_pass ${a.base}; proxy_set_header Host $http_host; proxy_buffering on; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade; }`);
  await behind(t, a, proxy, 'WebSocket');
});

test('nginx that cuts after 10 s of silence: WebSocket, kept open after it has been learned, nothing lost', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t) });
  const proxy = await nginx(t, `location / { proxy_pass ${a.base}; proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade; proxy_read_timeout 10s; proxy_send_timeout 10s; }`);
  const anna = await pane(await context(t), proxy.base, 'anna');
  await anna.live('WebSocket', 15_000);
  const took = await anna.liveAfter();
  assert.ok(took <= 5000, `live after ${took} ms`);
  const cuts = () => anna.page.evaluate(() => window.cuts.length);
  await anna.page.evaluate(() => {
    window.cuts = [];
    new MutationObserver(() => { const { state } = document.querySelector('#badge').dataset; if (state === 'stale') window.cuts.push(Date.now()); }).observe(document.querySelector('#badge'), { attributes: true, attributeFilter: ['data-state'] });
  });
  await pause(26_000);
  await anna.live('WebSocket', 5500);
  assert.ok(await cuts() <= 2, 'cut twice at most');
  const before = await cuts();
  await pause(24_000);
  assert.equal(await cuts(), before, 'and not again');
  await a.api('projects/42/comments', { editor: 'bilal', text: 'After a long silence' });
  await anna.shows('After a long silence', 3000);
  await settled(anna, a, 'anna');
});

for (const [name, mode, silence, extra] of [['in its default mode', 'http', '30s', ''], ['with a tunnel timeout', 'http', '30s', 'timeout tunnel 1h'], ['as a plain TCP tunnel', 'tcp', '1h', '']]) {
  test(`HAProxy ${name}: WebSocket`, async (t) => {
    const a = await node(t, 'a', { redis: await redis(t) });
    const proxy = await haproxy(t, `
defaults
  mode ${mode}
  timeout connect 3s
  timeout client ${silence}
  timeout server ${silence}
  ${extra}
frontend f
  bind LISTEN
  default_backend b
backend b
  server a 127.0.0.1:${a.port}
`);
    await behind(t, a, proxy, 'WebSocket', () => pause(1500));
  });
}

test('a 502 for the WebSocket alone, and one that never answers it', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t) });
  const broken = await nginx(t, `location = /realtime { return 502; } location / { proxy_pass ${a.base}; proxy_set_header Host $http_host; }`);
  await behind(t, a, broken, 'SSE');
  const silent = (await import('node:net')).createServer(() => {}).listen(0, '127.0.0.1');
  t.after(() => silent.close());
  await until('it listens', () => silent.listening);
  const hanging = await nginx(t, `location = /realtime { proxy_pass http://127.0.0.1:${silent.address().port}; proxy_set_header Host $http_host; } location / { proxy_pass ${a.base}; proxy_set_header Host $http_host; }`);
  await behind(t, a, hanging, 'SSE');
});
