// The publisher against a real Redis with Carillon's functions. CARILLON_BIN names a node's program.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createClient } from 'redis';
import { Publisher, QueueFull, Refused, Unavailable, encodeKey, folded, privateTopic, topic } from '../src/index.js';

const root = new URL('../../../', import.meta.url).pathname;
const carillon = process.env.CARILLON_BIN ?? `${root}target/debug/carillon`;
/** Below the ports that the kernel gives to outgoing connections, so that a server can come back on it. */
const freePort = () => new Promise((done) => {
  const port = randomInt(12_000, 32_000);
  const server = createServer().once('error', () => done(freePort())).listen(port, '127.0.0.1', () => server.close(() => done(port)));
});

/** A redis-server of the test's own, with the function library. */
async function redisServer(t) {
  const directory = mkdtempSync(join(tmpdir(), 'carillon-node-'));
  const port = await freePort();
  const server = { port, url: `redis://127.0.0.1:${port}` };
  server.start = async () => {
    const options = ['--port', String(port), '--bind', '127.0.0.1', '--dir', directory, '--appendonly', 'yes', '--appendfsync', 'always', '--save', ''];
    server.process = spawn('redis-server', options, { stdio: 'ignore' });
    server.client = await createClient({ url: server.url, socket: { reconnectStrategy: () => 20 } }).on('error', () => {}).connect();
  };
  server.stop = async () => {
    server.client.destroy();
    const ended = new Promise((done) => server.process.once('exit', done));
    server.process.kill('SIGKILL');
    await ended;
  };
  server.log = async (name) => (await server.client.xRange(`carillon:${name}`, '-', '+')).map(({ message }) => JSON.parse(message.event));
  await server.start();
  t.after(async () => { await server.stop(); rmSync(directory, { recursive: true }); });
  await server.client.sendCommand(['FUNCTION', 'LOAD', 'REPLACE', execFileSync(carillon, ['redis-function'], { encoding: 'utf8' })]);
  return server;
}

function publisherOf(t, server, options = {}) {
  const publisher = new Publisher(server.url, { source: 'cms', patience: 60_000, ...options });
  t.after(() => publisher.close());
  return publisher;
}

test('topics are encoded as nodes expect them', () => {
  assert.equal(topic('comments'), 'comments');
  assert.equal(topic('content', 'a b%c*d,e{f}'), 'content:a%20b%25c%2Ad%2Ce%7Bf%7D');
  assert.equal(encodeKey('a\u0085b\x7f\n'), 'a%C2%85b%7F%0A');
  assert.equal(privateTopic('Anna Ä\\x'), 'notifications:Anna%20Ä\\x');
  for (const bad of ['', 'a'.repeat(201), 'ä'.repeat(101), '\ud800']) assert.throws(() => encodeKey(bad), /cannot be a topic's key/);
  for (const bad of ['', 'Comments', 'a_b', 'a:b']) assert.throws(() => topic(bad), /cannot be an area/);
  const good = readFileSync(`${root}tests/corpus/topics.jsonl`, 'utf8').trim().split('\n').map((line) => JSON.parse(line))
    .filter((line) => line.verdict === 'good' && line.topic.includes(':') && !line.topic.includes('%'));
  assert.ok(good.length > 5);
  for (const { topic: name } of good) assert.equal(encodeKey(name.slice(name.indexOf(':') + 1)), name.slice(name.indexOf(':') + 1));
});

test('what has not been saved has no topic, and a wrong address is said at once', () => {
  for (const key of [undefined, null]) {
    assert.throws(() => topic('comments', key), /has it been saved/);
    assert.throws(() => privateTopic(key), /has it been saved/);
  }
  for (const url of ['http://redis', 'redis://', 'redis-sentinel://host:26379', 'redis://user:topsecret@ho st', undefined]) {
    assert.throws(() => new Publisher(url), (error) => error instanceof RangeError && !error.message.includes('topsecret'), url);
  }
});

test('private topics are named as nodes name them', () => {
  const { editors, nobody } = JSON.parse(readFileSync(`${root}docs/private-keys.json`, 'utf8'));
  assert.ok(editors.length > 30 && nobody.length > 5);
  for (const { name, key, folded: lower } of editors) {
    assert.equal(privateTopic(name), `notifications:${key}`);
    assert.equal(privateTopic(folded(name)), `notifications:${lower}`);
  }
  for (const { name } of nobody) assert.throws(() => privateTopic(name), RangeError, JSON.stringify(name));
});

test('an event is recorded once, however often it is sent', async (t) => {
  const server = await redisServer(t);
  const publisher = publisherOf(t, server);
  const event = { type: 'comment.created', id: 'once', data: { comment: 7 } };
  const position = await publisher.record('comments:42', event);
  assert.equal(await publisher.record('comments:42', event), position);
  const [kept, ...more] = await server.log('comments:42');
  assert.deepEqual([kept.source, kept.type, kept.data, more], ['cms', 'comment.created', { comment: 7 }, []]);
});

test('one event reaches several topics, and many events keep their order', async (t) => {
  const server = await redisServer(t);
  const publisher = publisherOf(t, server);
  assert.equal((await publisher.record(['content:1', 'content:2'], { type: 'content.moved' })).length, 2);
  assert.equal((await server.log('content:1'))[0].id, (await server.log('content:2'))[0].id);
  const events = Array.from({ length: 60 }, (_, n) => [`projects:${n % 3}`, { type: 'project.saved', data: n }]);
  const results = await publisher.recordMany([...events, ['nowhere:1', { type: 'project.saved' }]]);
  assert.ok(results.pop().error instanceof Refused);
  assert.ok(results.every(({ error }) => !error));
  for (let n = 0; n < 3; n += 1) {
    assert.deepEqual((await server.log(`projects:${n}`)).map(({ data }) => data), events.map(([, { data }]) => data).filter((data) => data % 3 === n));
  }
});

test('what waits for Redis is bounded, and arrives in order when it is back', async (t) => {
  const server = await redisServer(t);
  const publisher = publisherOf(t, server, { queue: 5 });
  await publisher.record('comments:1', { type: 'a.b', data: 0 });
  await server.stop();
  const waiting = [1, 2, 3, 4, 5].map((data) => publisher.record('comments:1', { type: 'a.b', data }));
  assert.equal(publisher.waiting, 5);
  await assert.rejects(publisher.record('comments:1', { type: 'a.b' }), QueueFull);
  await server.start();
  await Promise.all(waiting);
  assert.deepEqual((await server.log('comments:1')).map(({ data }) => data), [0, 1, 2, 3, 4, 5]);
  assert.equal(publisher.waiting, 0);
});

/** Waits for a report of the source `cms` that is like this: since when its oldest event waits, ms of Redis' clock; 0: none waits. */
async function reported(server, like) {
  for (const end = Date.now() + 30_000; Date.now() < end;) {
    const [, , until, since] = await server.client.sendCommand(['FCALL', 'carillon_sources', '1', 'carillon:sources']);
    if (since !== undefined && like(Number(since), Number(until))) return [Number(since), Number(until)];
    await new Promise((done) => setTimeout(done, 20));
  }
  throw new Error('no report like that within 30 s');
}

test('a source is as late as the oldest event that waits, also behind younger ones of its topic', async (t) => {
  const server = await redisServer(t);
  const publisher = publisherOf(t, server);
  publisher.report('cms', { everySeconds: 0.2 });
  await reported(server, (since) => since === 0);
  await server.client.sendCommand(['CONFIG', 'SET', 'maxmemory', '1']);
  const first = publisher.record('comments:1', { type: 'a.b' });
  const [, until] = await reported(server, (since) => since > 0);
  const younger = Date.now();
  const second = publisher.record('comments:1', { type: 'a.b' });
  const [since] = await reported(server, (_, later) => later > until + 400);
  assert.ok(since < younger, 'the first one still waits');
  await server.client.sendCommand(['CONFIG', 'SET', 'maxmemory', '0']);
  await Promise.all([first, second]);
  await reported(server, (none) => none === 0);
});

test('an event that was given up is reported as one that waits', async (t) => {
  const server = await redisServer(t);
  const publisher = publisherOf(t, server, { patience: 100 });
  await server.client.sendCommand(['CONFIG', 'SET', 'maxmemory', '1']);
  const begun = Date.now();
  await assert.rejects(publisher.record('comments:1', { type: 'a.b' }), Unavailable);
  publisher.report('cms', { everySeconds: 0.2 });
  const [since] = await reported(server, (waits) => waits > 0);
  assert.ok(Math.abs(since - begun) < 5000, 'as old as that event');
});

test('events that are lost one after the other make a source no younger', async (t) => {
  const server = await redisServer(t);
  const publisher = publisherOf(t, server, { patience: 100 });
  await server.client.sendCommand(['CONFIG', 'SET', 'maxmemory', '1']);
  publisher.report('cms', { everySeconds: 0.2 });
  const begun = Date.now();
  for (let n = 0; n < 20; n++) await assert.rejects(publisher.record(`comments:${n}`, { type: 'a.b' }), Unavailable);
  const [since] = await reported(server, (waits) => waits > 0);
  assert.ok(since < (begun + Date.now()) / 2, `the first was lost soon after ${begun}, and they wait since ${since}`);
});

test('an event has an id, also where its own is undefined', async (t) => {
  const server = await redisServer(t);
  const publisher = publisherOf(t, server);
  await publisher.record('comments:1', { type: 'a.b', id: undefined });
  const [[, [, text]]] = await server.client.sendCommand(['XRANGE', 'carillon:comments:1', '-', '+']);
  assert.match(JSON.parse(text).id, /^[0-9a-f-]{36}$/);
});

test('errors say what to do, and never the password', async (t) => {
  const server = await redisServer(t);
  await server.client.sendCommand(['ACL', 'SETUSER', 'reader', 'on', '>topsecret', '+get', '~*']);
  const asReader = publisherOf(t, { url: `redis://reader:topsecret@127.0.0.1:${server.port}` });
  await assert.rejects(asReader.record('comments:1', { type: 'a.b' }), (error) => error instanceof Refused && /redis-function --acl/.test(error.message));
  const wrong = publisherOf(t, { url: `redis://reader:wrongsecret@127.0.0.1:${server.port}` });
  await assert.rejects(wrong.record('comments:1', { type: 'a.b' }), (error) => error instanceof Refused && !error.message.includes('wrongsecret'));
  await server.client.sendCommand(['FUNCTION', 'FLUSH']);
  const early = publisherOf(t, server, { patience: 100 });
  await assert.rejects(early.record('comments:1', { type: 'a.b' }), (error) => error instanceof Unavailable && /start a Carillon node/.test(error.message));
});
