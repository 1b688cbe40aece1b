// What a page meets: handlers, topics, refusals, the module itself.
import test from 'node:test';
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { FakeNode, mint, until } from './fake-node.js';
import { Realtime, VERSION, audit, setup, silence } from './setup.js';

test('own echo is dropped, others with the same event come', async (t) => {
  const { node, rt, live } = await setup(t);
  const a = audit(rt, 'comments:42');
  await live();
  await a.followed();
  node.publish('comments:42', { type: 'x.y', n: 1, origin: rt.id });
  node.publish('comments:42', { type: 'x.y', n: 2, origin: 'tab-other' });
  await until('the other', () => a.events.length === 1);
  assert.deepEqual(a.events, [2]);
});

test('several handlers, AbortSignal, once, unsubscribe by function and by off()', async (t) => {
  const { node, rt, live } = await setup(t);
  const got = [];
  const abort = new AbortController();
  rt.on('comments:42', (e) => got.push(`a${e.n}`), { signal: abort.signal });
  const stop = rt.on('comments:42', { handleEvent: (e) => got.push(`b${e.n}`) });
  rt.on('comments:42', (e) => got.push(`c${e.n}`), { once: true });
  const d = (e) => got.push(`d${e.n}`);
  rt.on('comments:42', d);
  rt.addEventListener('event', (e) => got.push(`e${e.detail.event.n}`));
  await live();
  await until('followed', () => rt.records.has('comments:42'));
  node.publish('comments:42', { type: 'x.y', n: 1 });
  await until('five', () => got.length === 5);
  abort.abort();
  node.publish('comments:42', { type: 'x.y', n: 2 });
  await until('three more', () => got.length === 8);
  stop();
  rt.off('comments:42', d);
  await until('unsubscribed', () => node.sent.some((m) => m.type === 'unsubscribe' && m.topics[0] === 'comments:42'));
  assert.deepEqual(got, ['a1', 'b1', 'c1', 'd1', 'e1', 'b2', 'd2', 'e2']);
});

test('the last key of an area goes, and the next topic is followed at once', async (t) => {
  const { node, rt, live } = await setup(t);
  const stop = rt.on('comments:42', () => {});
  await live();
  await until('followed', () => rt.records.get('comments:42')?.state === 'followed');
  stop();
  const told = [];
  rt.onResync('content:7', ({ reason }) => told.push(reason));
  await until('the next one is followed', () => told.length === 1);
  assert.ok(node.sent.some((m) => m.type === 'unsubscribe'));
  assert.deepEqual(told, ['subscribed']);
});

test('nothing is thrown into the page: handlers, options, urls', async (t) => {
  const said = silence(t);
  const reported = [];
  globalThis.reportError = (e) => reported.push(e.message);
  t.after(() => { delete globalThis.reportError; });
  const { node, rt, live } = await setup(t, {}, { transports: ['websocket', 'pigeon'] });
  const a = { n: 0 };
  rt.on('comments:42', () => { throw new Error('mine'); });
  rt.on('comments:42', async () => { throw new Error('later'); });
  rt.on('comments:42', () => a.n++);
  await live();
  await until('followed', () => rt.records.has('comments:42'));
  node.publish('comments:42', { type: 'x.y' });
  await until('third handler', () => a.n === 1);
  await until('reports', () => reported.length === 2);
  assert.deepEqual(reported, ['mine', 'later']);
  assert.match(said[0], /pigeon/);
  rt.on('projects', () => {}, null)();
  const bad = new Realtime({ url: 'http://[', shared: false });
  bad.close();
});

test('refused topics: said once, told by an event, no resync', async (t) => {
  const said = silence(t);
  const { rt, live } = await setup(t);
  const refused = [];
  rt.addEventListener('refused', (e) => refused.push(`${e.detail.topic} ${e.detail.code}`));
  const a = audit(rt, 'secret:1');
  await live();
  await until('refused', () => refused.length === 1);
  assert.deepEqual(refused, ['secret:1 forbidden']);
  assert.deepEqual(a.resyncs, []);
  assert.equal(said.length, 1);
});

test('a topic that was taken away and given back is read again', async (t) => {
  silence(t);
  const { node, rt, live } = await setup(t);
  const a = audit(rt, 'comments:42');
  await live();
  await a.followed();
  for (const s of node.sessions) s.topics.clear();
  node.tell({ type: 'unsubscribed', topics: ['comments:42', 'comments'] });
  await until('refused', () => rt.records.get('comments:42').state === 'refused');
  node.publish('comments:42', { type: 'x.y', n: 1 });
  node.tell({ type: 'token-accepted', expires_in: 600 });
  await until('followed again', () => rt.records.get('comments:42').state === 'followed');
  assert.deepEqual(a.resyncs, ['comments:42 subscribed', 'comments:42 subscribed']);
});

test('an area that is followed by name does not end unseen with the answer about one of its keys', async (t) => {
  silence(t);
  const { node, rt, live } = await setup(t);
  const a = audit(rt, 'comments');
  const stop = rt.on('comments:42', () => {});
  await live();
  await a.followed();
  const heard = [];
  for (const s of node.sessions) s.hear = (m) => heard.push(m.type);    // its own answer is held back
  stop();
  await until('the question', () => heard.includes('unsubscribe'));
  node.tell({ type: 'unsubscribed', topics: ['comments:42', 'comments'] });
  await until('refused', () => rt.records.get('comments').state === 'refused', 5000);
});

test('a poll that goes on may be told what is refused, though it has asked nothing new', async (t) => {
  silence(t);
  const { node, rt, live } = await setup(t, {}, { transports: ['poll'] });
  audit(rt, 'comments:42');
  await live('poll');
  await until('the next poll', () => node.counts.poll > 1 && node.sessions.size);
  node.tell({ type: 'subscribed', positions: {}, refused: [{ topic: 'comments:42', code: 'forbidden' }] });
  await until('refused', () => rt.records.get('comments:42').state === 'refused');
});

test('subscribing while live, a handler that comes late, and wildcards', async (t) => {
  const { node, rt, live } = await setup(t);
  await live();
  const a = audit(rt, 'comments:42');
  await a.followed();
  const late = [];
  rt.onResync('comments:42', (r) => late.push(r.reason));
  await until('late handler told', () => late.length === 1);
  const all = audit(rt, 'project-items:*');
  await all.followed();
  node.publish('project-items:7', { type: 'x.y', n: 7 });
  node.publish('project-items', { type: 'x.y', n: 8 });
  await until('both', () => all.events.length === 2);
});

test('subscribing on SSE opens again and loses nothing', async (t) => {
  silence(t);
  const { node, rt, live, states } = await setup(t, { wsMode: '200' });
  const a = audit(rt, 'comments:42');
  await live('sse');
  await a.followed();
  node.publish('comments:42', { type: 'x.y', n: 1 });
  const b = audit(rt, 'comments:43');
  node.publish('comments:42', { type: 'x.y', n: 2 });
  await b.followed();
  node.publish('comments:42', { type: 'x.y', n: 3 });
  node.publish('comments:43', { type: 'x.y', n: 4 });
  await until('all', () => a.events.length === 3 && b.events.length === 1);
  assert.deepEqual(a.events, [1, 2, 3]);
  assert.deepEqual(a.resyncs, ['comments:42 subscribed']);
  assert.deepEqual(b.resyncs, ['comments:43 subscribed']);
  assert.deepEqual(states, ['connecting', 'live']);
});

test('every snippet of README.md is well-formed', async (t) => {
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
  const snippets = [...readme.matchAll(/```js\n([\s\S]*?)```/g)].map(([, code]) => code);
  assert.ok(snippets.length >= 4);
  const file = join(mkdtempSync(join(tmpdir(), 'carillon-snippets-')), 'snippet.mjs');
  t.after(() => rmSync(dirname(file), { recursive: true }));
  for (const code of snippets) {
    writeFileSync(file, code);
    await promisify(execFile)(process.execPath, ['--check', file]).catch((error) => assert.fail(error.stderr));
  }
});

test('topics encode their keys', () => {
  assert.equal(Realtime.topic('notifications', 'anna lind*{}'), 'notifications:anna%20lind%2A%7B%7D');
  assert.equal(Realtime.topic('comments', 42), 'comments:42');
});

test('private topics are named as nodes name them', () => {
  const { editors } = JSON.parse(readFileSync(new URL('../../docs/private-keys.json', import.meta.url), 'utf8'));
  assert.ok(editors.length > 30);
  const folded = (user) => [...user].map((c) => [...c.toLowerCase()][0]).join('');    // as README.md has it
  for (const { name, key, folded: lower } of editors) {
    assert.equal(Realtime.topic('notifications', name), `notifications:${key}`);
    assert.equal(Realtime.topic('notifications', folded(name)), `notifications:${lower}`);
  }
});

test('in Node, without a page: no WebSocket before Node 22 is no fault of a proxy, and close() lets the process end', async (t) => {
  const node = await new FakeNode().listen();
  t.after(() => node.kill());
  const script = `
    delete globalThis.WebSocket;
    const { Realtime } = await import(${JSON.stringify(new URL('../realtime.js', import.meta.url).href)});
    const rt = new Realtime({ url: '${node.url}', token: '${mint('anna')}' });
    const { state, transport } = await rt.ready();
    console.log(state, transport);
    rt.close();`;
  const { stdout, stderr } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], { timeout: 60_000 });    // else it is ended, and that throws
  assert.deepEqual([stdout, stderr], ['live sse\n', '']);
});

test('the script is small, and its version is the package’s', () => {
  const source = readFileSync(new URL('../realtime.js', import.meta.url));
  const size = gzipSync(source, { level: 9 }).length;
  console.log(`realtime.js: ${source.length} bytes, ${size} gzipped`);
  assert.ok(size <= 12.5 * 1024, `${size} bytes gzipped`);
  assert.equal(JSON.parse(readFileSync(new URL('../package.json', import.meta.url))).version, VERSION);
});
