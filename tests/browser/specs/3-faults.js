// What breaks under an open page: the badge tells the truth at each moment, and afterwards the page equals the CMS.
import assert from 'node:assert/strict';
import { test, until, pause } from '../lib/harness.js';
import { redis, node } from '../lib/rig.js';
import { context, pane, settled } from '../lib/browser.js';

test('the node is killed under an open tab, and comes back', async (t) => {
  const r = await redis(t);
  const cms = await node(t, 'cms', { redis: r });
  const a = await node(t, 'a', { redis: r });
  const { nginx } = await import('../lib/rig.js');
  const front = await nginx(t, `location /demo/ { proxy_pass ${cms.base}; proxy_set_header Host $http_host; } location / { proxy_pass ${a.base}; proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade; }`);
  const anna = await pane(await context(t), front.base, 'anna');
  await anna.live('WebSocket');
  await cms.api('projects/42/comments', { editor: 'bilal', text: 'Before' });
  await anna.shows('Before');
  await a.stop('SIGKILL');
  await anna.becomes('stale', 3000);
  assert.match(await anna.text('#badge-text'), /^Not live since \d/);
  assert.equal(await anna.page.getByText('It catches up by itself.').isVisible(), true);
  for (let n = 1; n <= 5; n++) await cms.api('projects/42/comments', { editor: 'bilal', text: `Missed ${n}` });
  await cms.api('projects/42/items/i1/approve', { editor: 'bilal' });
  assert.equal((await anna.comments()).some((c) => c.includes('Missed')), false);
  await node(t, 'a', { redis: r, port: a.port });
  await anna.live('WebSocket', 35_000);
  await anna.shows('Missed 5');
  await settled(anna, cms, 'anna');
  const { resyncs, events } = await anna.audit();
  assert.equal(resyncs, 0);
  assert.ok(events >= 7, 'replayed, not reloaded');
});

test('Redis stops for 20 s', async (t) => {
  const r = await redis(t);
  const a = await node(t, 'a', { redis: r });
  const anna = await pane(await context(t), a.base, 'anna');
  await anna.live('WebSocket');
  await a.api('projects/42/comments', { editor: 'bilal', text: 'Before' });
  await anna.shows('Before');
  r.child.kill('SIGSTOP');
  const stopped = Date.now();
  await anna.becomes('stale', 12_000);
  assert.equal(await anna.page.locator('#notice').isVisible(), true);
  await pause(Math.max(0, 20_000 - (Date.now() - stopped)));
  assert.equal(await anna.state(), 'stale');
  r.child.kill('SIGCONT');
  await anna.live('WebSocket', 20_000);
  await a.api('projects/42/comments', { editor: 'bilal', text: 'After' });
  await anna.shows('After');
  await settled(anna, a, 'anna');
});

test('the tab sleeps and wakes up', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t), HEARTBEAT__SECONDS: 2 });
  const ctx = await context(t);
  const anna = await pane(ctx, a.base, 'anna', '&shared=0');
  await anna.live('WebSocket');
  const cdp = await ctx.newCDPSession(anna.page);
  await cdp.send('Page.setWebLifecycleState', { state: 'frozen' });
  for (let n = 1; n <= 4; n++) { await a.api('projects/42/comments', { editor: 'bilal', text: `Asleep ${n}` }); await pause(1500); }
  await cdp.send('Page.setWebLifecycleState', { state: 'active' });
  await anna.live('WebSocket', 15_000);
  await anna.shows('Asleep 4');
  await settled(anna, a, 'anna');
});

test('the token ends: renewed in time; where it cannot be, the badge says so, and live again once it can', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t) });
  const anna = await pane(await context(t), a.base, 'anna', '&shared=0&ttl=6');
  await anna.live('WebSocket');
  await anna.page.locator('#log-button').click();
  await until('a fresh token was accepted', async () => (await anna.text('#messages')).includes('token-accepted'), 9000);
  assert.equal(await anna.state(), 'live');
  let refused = 0;
  await anna.page.route('**/demo/api/token', (route) => { refused++; return route.abort(); });
  await anna.becomes('stale', 60_000);
  assert.ok(refused > 0);
  await a.api('projects/42/comments', { editor: 'bilal', text: 'While signed out' });
  assert.equal((await anna.comments()).some((c) => c.includes('While signed out')), false);
  await anna.page.unroute('**/demo/api/token');
  await anna.live('WebSocket', 35_000);
  await anna.shows('While signed out');
  await settled(anna, a, 'anna');
  assert.equal(anna.said.filter((s) => s.includes('[carillon] token()')).length, 1, 'said once');
});

test('the switches of the demo: cable, stale, WebSocket, SSE; nothing lost over all of them', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t) });
  const anna = await pane(await context(t), a.base, 'anna');
  await anna.live('WebSocket');
  let n = 0, on = true;
  const writing = (async () => { while (on) { await a.api('projects/42/comments', { editor: 'bilal', text: `Number ${++n}` }); await pause(120); } })();
  t.after(async () => { on = false; await writing; });
  await anna.faults('block-websocket');
  await anna.live('SSE', 6000);
  await anna.faults('block-websocket', 'block-sse');
  await anna.live('long-poll', 6000);
  await anna.faults('offline');
  await anna.becomes('stale');
  await pause(1000);
  await anna.faults();
  await anna.live(undefined, 10_000);
  await anna.faults('stale');
  await anna.becomes('stale');
  await pause(1000);
  await anna.faults();
  await anna.live(undefined, 10_000);
  await anna.page.evaluate(() => window.dispatchEvent(new Event('online')));
  await anna.live('WebSocket', 12_000);
  on = false;
  await writing;
  await anna.shows(`Number ${n}`);
  await settled(anna, a, 'anna');
  assert.equal((await anna.audit()).resyncs, 0);
});
