// What breaks under an open page: the badge tells the truth at each moment, and afterwards the page equals the CMS.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { test, until, pause } from '../lib/harness.js';
import { redis, node, nginx } from '../lib/rig.js';
import { asleep, context, pane, picture, settled } from '../lib/browser.js';

/** One address for a CMS and for a node that may go away. */
const between = (t, cms, a) => nginx(t, `location /demo/ { proxy_pass ${cms.base}; proxy_set_header Host $http_host; } location / { proxy_pass ${a.base}; proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade; }`);

/** An editor who is live at a node that may go away: their CMS has a node of its own. */
async function beside(t) {
  const r = await redis(t);
  const cms = await node(t, 'cms', { redis: r });
  const a = await node(t, 'a', { redis: r });
  const front = await between(t, cms, a);
  const anna = await pane(await context(t), front.base, 'anna');
  await anna.live('WebSocket');
  await cms.api('projects/42/comments', { editor: 'bilal', text: 'Before' });
  await anna.shows('Before');
  const states = await anna.record();
  return { r, cms, a, anna, states };
}

test('the node is killed under an open tab, and comes back', async (t) => {
  const { r, cms, a, anna, states } = await beside(t);
  await a.stop('SIGKILL');
  await anna.becomes('stale', 3000);
  const seen = Date.now();
  await picture(anna.page, 'fault-node-killed');
  assert.match(await anna.text('#badge-text'), /^Not live since \d/);
  assert.equal(await anna.page.getByText('May be behind; catches up by itself.').isVisible(), true);
  for (let n = 1; n <= 5; n++) await cms.api('projects/42/comments', { editor: 'bilal', text: `Missed ${n}` });
  await cms.api('projects/42/items/i1/approve', { editor: 'bilal' });
  assert.equal((await anna.comments()).some((c) => c.includes('Missed')), false);
  const down = Date.now();
  await node(t, 'a', { redis: r, port: a.port });
  assert.deepEqual(await states(seen, down), ['stale'], 'not live while there is no node');
  await anna.live('WebSocket', 35_000);
  await anna.shows('Missed 5');
  await settled(anna, cms, 'anna');
  const { resyncs, events } = await anna.audit();
  assert.equal(resyncs, 0);
  assert.ok(events >= 7, 'replayed, not reloaded');
});

test('a publisher that falls silent: the bar says whose changes may be late, and stays live', async (t) => {
  const r = await redis(t);
  const a = await node(t, 'a', { redis: r });
  const vouch = (seconds) => promisify(execFile)('redis-cli', ['-p', String(r.port), 'FCALL', 'carillon_source', '1', 'carillon:sources', 'cms', String(seconds)]);
  const anna = await pane(await context(t), a.base, 'anna');
  await anna.live('WebSocket');
  await vouch(5);
  await until('it is told', async () => (await anna.text('#notice')) === 'Changes made through cms may be late.', 40_000);
  assert.equal(await anna.state(), 'live');
  await picture(anna.page, 'fault-publisher-late');
  await vouch(300);
  await until('it is over', async () => !await anna.page.locator('#notice').isVisible(), 40_000);
  assert.equal(await anna.state(), 'live');
});

test('Redis stops for 20 s', async (t) => {
  const r = await redis(t);
  const a = await node(t, 'a', { redis: r });
  const anna = await pane(await context(t), a.base, 'anna');
  await anna.live('WebSocket');
  await a.api('projects/42/comments', { editor: 'bilal', text: 'Before' });
  await anna.shows('Before');
  const states = await anna.record();
  r.child.kill('SIGSTOP');
  const stopped = Date.now();
  await anna.becomes('stale', 12_000);
  assert.equal(await anna.page.locator('#notice').isVisible(), true);
  await pause(Math.max(0, 20_000 - (Date.now() - stopped)));
  await picture(anna.page, 'fault-redis-stopped');
  assert.deepEqual(await states(stopped + 12_000, Date.now()), ['stale'], 'once it is seen, it is said until it is over');
  r.child.kill('SIGCONT');
  await anna.live('WebSocket', 20_000);
  await a.api('projects/42/comments', { editor: 'bilal', text: 'After' });
  await anna.shows('After');
  await settled(anna, a, 'anna');
});

test('Redis is killed and comes back empty after 20 s: told to read again, and equal to the CMS', async (t) => {
  const r = await redis(t);
  const a = await node(t, 'a', { redis: r });
  const anna = await pane(await context(t), a.base, 'anna');
  await anna.live('WebSocket');
  const states = await anna.record();
  const killed = Date.now();
  await r.stop('SIGKILL');
  await anna.becomes('stale', 12_000);
  const lost = await a.api('projects/42/comments', { editor: 'bilal', text: 'Kept by the CMS, announced to nobody' });
  assert.ok(lost.publish_error, 'the CMS knows that it could not tell');
  await pause(Math.max(0, 20_000 - (Date.now() - killed)));
  assert.deepEqual(await states(killed + 12_000, Date.now()), ['stale']);
  await redis(t, r.port);
  await anna.live('WebSocket', 20_000);
  await anna.shows('Kept by the CMS, announced to nobody', 10_000);
  const reasons = [...new Set((await anna.raw('resync')).map((m) => m.reason))];
  assert.deepEqual(reasons, ['redis-changed']);
  await settled(anna, a, 'anna');
});

test('the tab sleeps and wakes up', async (t) => {
  const a = await node(t, 'a', { redis: await redis(t), HEARTBEAT__SECONDS: 2 });
  const anna = await pane(await context(t), a.base, 'anna');
  await anna.live('WebSocket');
  const states = await anna.record();
  const woke = await asleep(async () => {
    for (let n = 1; n <= 4; n++) await a.api('projects/42/comments', { editor: 'bilal', text: `Asleep ${n}` });
    await until('the node has given the session up', async () => (await a.sessions()).total === 0, 15_000);
  });
  await anna.shows('Asleep 4', 15_000);
  await anna.live('WebSocket');
  assert.deepEqual((await states(woke)).sort(), ['live', 'stale'], 'the badge said that the session had ended');
  await settled(anna, a, 'anna');
});

test('the tab sleeps while its node goes away and comes back: it wakes up stale, and catches up', async (t) => {
  const { r, cms, a, anna, states } = await beside(t);
  const woke = await asleep(async () => {
    await a.stop('SIGKILL');
    for (let n = 1; n <= 3; n++) await cms.api('projects/42/comments', { editor: 'bilal', text: `Asleep ${n}` });
    await node(t, 'a', { redis: r, port: a.port });
  });
  await anna.shows('Asleep 3', 15_000);
  await anna.live('WebSocket');
  assert.deepEqual((await states(woke)).sort(), ['live', 'stale'], 'the badge said that the session had ended');
  await settled(anna, cms, 'anna');
  assert.equal((await anna.audit()).resyncs, 0, 'replayed, not reloaded');
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
  await picture(anna.page, 'fault-token-ended');
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
