// The publisher: a bounded queue, one event per topic under way, and repetitions that deliver nothing twice.
import { randomUUID } from 'node:crypto';
import { setTimeout as pauseFor } from 'node:timers/promises';
import { createClient, createCluster, createSentinel } from 'redis';
import { QueueFull, Unavailable, isTemporary, notPublished } from './errors.js';

// Milliseconds until a connection or an answer counts as lost.
const LOST = 2000;
const SHORTEST_PAUSE = 50;
const LONGEST_PAUSE = 1000;
const MAX_BYTES = 65_536;
// For how long a source says that an event waits which was given up.
const TOLD = 60_000;

/** Publishes to the Redis that Carillon's nodes listen to. One is enough for a process. */
export class Publisher {
  #make;
  #client;
  #chains = new Map();    // by topic: what the next event has to wait for
  #waiting = new Set();
  #lost = { since: 0, at: -Infinity };    // the last event that Redis did not take in time, and when it was given up
  #reports = new Map();
  #closed = false;

  /** See `PublisherOptions` in index.d.ts. */
  constructor(url, { source, prefix = 'carillon', patience = 10_000, queue = 10_000, redis = {} } = {}) {
    const parts = partsOf(url);    // a wrong address is said here, and not by the first event
    this.#make = () => clientFor(url, parts, redis);
    Object.assign(this, { source, prefix, patience, queue });
  }

  /** How many events wait to be recorded. */
  get waiting() { return this.#waiting.size; }

  async record(topics, event) {
    const [result] = await this.recordMany([[topics, event]]);
    if (result.error) throw result.error;
    return Array.isArray(topics) ? result.positions : result.positions[0];
  }

  /** Never rejects for one event: each result has `positions` or `error`. Rejects where the queue is full. */
  async recordMany(events) {
    const messages = [...events].map(([topics, event]) => this.#message(topics, event));
    if (this.waiting + messages.length > this.queue) {
      this.#lose(Date.now());
      throw new QueueFull(`${this.waiting} events wait to be published already, allowed are ${this.queue}: Redis is away, or too slow`);
    }
    for (const message of messages) this.#waiting.add(message);
    return Promise.all(messages.map((message) => this.#inTurn(message).finally(() => this.#waiting.delete(message))));
  }

  async live(topic, event) {
    try {
      const command = (await this.#open()).isCarillonCluster ? 'SPUBLISH' : 'PUBLISH';
      return await this.#send(`${this.prefix}:${topic}`, [command, `${this.prefix}:${topic}`, JSON.stringify(this.#complete(event))]);
    } catch (error) {
      throw notPublished(error, this.prefix);
    }
  }

  /** Vouches for a source every few seconds, with the age of the oldest event of this publisher that waits, or was given up within a minute. */
  report(name, { everySeconds = 5, vouchedSeconds = 15 } = {}) {
    if (this.#reports.has(name)) return;
    const tell = () => this.#report(name, vouchedSeconds).catch(() => {});
    const timer = setInterval(tell, everySeconds * 1000);
    timer.unref();
    this.#reports.set(name, timer);
    tell();
  }

  /** Says good-bye for the reported sources, and closes the connection. What waits fails. */
  async close() {
    for (const [name, timer] of this.#reports) {
      clearInterval(timer);
      await this.#report(name, 0).catch(() => {});
    }
    this.#reports.clear();
    this.#closed = true;
    this.#drop();
  }

  #message(topics, event) {
    const names = [...new Set(Array.isArray(topics) ? topics : [topics])];
    if (!names.length) throw new RangeError('an event needs at least one topic');
    const text = JSON.stringify(this.#complete(event));
    const size = Buffer.byteLength(text);
    if (size > MAX_BYTES) throw new RangeError(`the event has ${size} bytes, allowed are ${MAX_BYTES}: say what changed, not the content itself`);
    return { topics: names, text, since: Date.now() };
  }

  // The id is there before the first attempt and stays: Carillon answers a repetition with the first position.
  #complete(event) {
    const defaults = { id: randomUUID(), ...(this.source === undefined ? {} : { source: this.source }), time: new Date().toISOString() };
    return { ...defaults, ...event, ...(event?.id === undefined && { id: defaults.id }) };
  }

  // An event waits for the one before it in each of its topics, so that a repetition never changes their order.
  async #inTurn(message) {
    const before = message.topics.map((topic) => this.#chains.get(topic));
    const mine = Promise.all(before).then(() => this.#deliver(message));
    for (const topic of message.topics) this.#chains.set(topic, mine);
    const result = await mine;
    for (const topic of message.topics) if (this.#chains.get(topic) === mine) this.#chains.delete(topic);
    return result;
  }

  async #deliver({ topics, text, since }) {
    const deadline = Date.now() + this.patience;
    const positions = [];
    for (let pause = SHORTEST_PAUSE; ; pause = Math.min(pause * 2, LONGEST_PAUSE)) {
      try {
        for (const topic of topics.slice(positions.length)) {
          const channel = `${this.prefix}:${topic}`;
          positions.push(await this.#send(channel, ['FCALL', `${this.prefix}_publish`, '1', channel, text]));
        }
        return { positions };
      } catch (error) {
        if (this.#closed || !isTemporary(error) || Date.now() + pause > deadline) {
          if (isTemporary(error)) this.#lose(since);
          return { positions, error: notPublished(error, this.prefix) };
        }
      }
      await pauseFor(pause * (0.5 + Math.random() / 2));
    }
  }

  // Since when events are lost without a pause of a minute: the next loss makes the source no younger.
  #lose(since) {
    const at = Date.now();
    this.#lost = { since: at - this.#lost.at < TOLD ? Math.min(this.#lost.since, since) : since, at };
  }

  async #report(name, seconds) {
    const now = Date.now();
    const lost = now - this.#lost.at < TOLD ? this.#lost.since : now;
    const oldest = [...this.#waiting].reduce((least, { since }) => Math.min(least, since), Math.min(lost, now));
    const key = `${this.prefix}:sources`;
    await this.#send(key, ['FCALL', `${this.prefix}_source`, '1', key, name, String(seconds), String(now - oldest)]);
  }

  // After any trouble with the network the connection is not used again: the next attempt finds the master of that moment.
  async #send(key, command) {
    const over = new AbortController();
    const lost = pauseFor(LOST, null, { signal: over.signal }).then(() => { throw new Error('Redis does not answer'); });
    lost.catch(() => {});
    const opened = this.#open();
    try {
      return await Promise.race([opened.then((client) => client.carillonSend(key, command)), lost]);
    } catch (error) {
      if (isTemporary(error) && this.#client === opened) this.#drop();
      throw error;
    } finally {
      over.abort();
    }
  }

  #open() {
    if (this.#closed) return Promise.reject(new Unavailable('the publisher is closed'));
    this.#client ??= this.#make();
    return this.#client;
  }

  #drop() {
    const client = this.#client;
    this.#client = undefined;
    // A connection that has ended by itself refuses to be ended.
    client?.then((open) => open.destroy()).catch(() => {});
  }
}

// No reconnecting and no queue inside the client: what is repeated, and for how long, is decided here.
const SOCKET = { connectTimeout: LOST, reconnectStrategy: false };

/** A connected client for redis://, rediss://, redis-sentinel://host/service and redis-cluster://host. */
const clientFor = async (url, { scheme, login, hosts, path }, options) => {
  const own = { ...login, ...options, socket: { ...SOCKET, ...options.socket }, disableOfflineQueue: true };
  if (scheme === 'redis-cluster') {
    const client = createCluster({ rootNodes: hosts.map((socket) => ({ socket: { ...SOCKET, ...socket } })), defaults: own });
    client.on('error', () => {});
    await client.connect();
    return Object.assign(client, { isCarillonCluster: true, carillonSend: (key, command) => client.sendCommand(key, false, command) });
  }
  if (scheme === 'redis-sentinel') {
    const client = createSentinel({ name: path, sentinelRootNodes: hosts, nodeClientOptions: own, sentinelClientOptions: { socket: SOCKET } });
    client.on('error', () => {});
    await client.connect();
    return Object.assign(client, { carillonSend: (key, command) => client.sendCommand(false, command) });
  }
  const client = createClient({ ...own, url });
  client.on('error', () => {});
  await client.connect();
  return Object.assign(client, { carillonSend: (key, command) => client.sendCommand(command) });
};

const partsOf = (url) => {
  const [, scheme, rest] = /^([a-z-]+):\/\/(.*)$/s.exec(String(url)) ?? [];
  if (!['redis', 'rediss', 'redis-sentinel', 'redis-cluster'].includes(scheme)) {
    throw new RangeError('the Redis URL must begin with redis://, rediss://, redis-sentinel:// or redis-cluster://');
  }
  const [places, path] = rest.slice(rest.lastIndexOf('@') + 1).split('/');
  const [username, ...password] = rest.includes('@') ? rest.slice(0, rest.lastIndexOf('@')).split(':') : [];
  const login = {
    ...(username ? { username: decodeURIComponent(username) } : {}),
    ...(password.length ? { password: decodeURIComponent(password.join(':')) } : {}),
  };
  const port = scheme === 'redis-sentinel' ? 26_379 : 6379;
  const hosts = places.split(',').filter(Boolean).map((place) => {
    if (!URL.canParse(`redis://${place}`)) throw new RangeError(`“${place}” is no host of a Redis URL`);
    const { hostname, port: given } = new URL(`redis://${place}`);
    return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(given || port) };
  });
  if (!hosts.length) throw new RangeError('the Redis URL names no host');
  if (scheme === 'redis-sentinel' && !path) throw new RangeError('a redis-sentinel URL ends in the name of the service: redis-sentinel://host:26379/mymaster');
  return { scheme, login, hosts, path };
};

