// Publishes events for Carillon from Node.js (`npm install redis`).
//
//   const publisher = new Publisher('redis://carillon-publisher:secret@redis:6379', { source: 'cms-01' });
//   await publisher.record('comments:42', { type: 'comment.created', data: { project: 42 } });
//   await publisher.live('comments:42', { type: 'activity.updated' });
//
// Publish after your transaction has committed: editors refetch as soon as the event reaches them.
import { randomUUID } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { setTimeout as pauseFor } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { createClient, ErrorReply } from 'redis';

/** The event is not recorded; the message says why and what to do. */
export class NotPublished extends Error {}

/** Answers that pass by themselves: Redis is starting, failing over, short of memory or of replicas. */
const PASSING = /^(LOADING|BUSY|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|OOM)/;
/** Answers that say who may do what; no attempt changes them. */
const FORBIDDEN = /^(NOPERM|NOAUTH|WRONGPASS)/;

/** Milliseconds until a connection or an answer counts as lost. */
const LOST = 2000;

/** Publishes to the Redis that Carillon's nodes listen to. One is enough for a process. */
export class Publisher {
  #url;
  #client;

  /**
   * `source` names this publisher; `patience`: milliseconds until `record` gives up (well under five minutes, the time
   * for which Carillon recognises an id).
   */
  constructor(url, { source, prefix = 'carillon', patience = 10_000 }) {
    this.#url = url;
    Object.assign(this, { source, prefix, patience });
  }

  /**
   * Publishes an event that is kept for editors who are away; resolves to its log id, `<epoch>-<seq>`.
   *
   * After an error nobody knows whether Redis had already taken it. So the event has an `id` before the first attempt
   * and keeps it: Carillon answers a repetition with the first id and delivers nothing twice.
   */
  async record(topic, event) {
    const text = JSON.stringify({ id: randomUUID(), source: this.source, time: new Date().toISOString(), ...event });
    const deadline = Date.now() + this.patience;
    for (let pause = 50; ; pause = Math.min(pause * 2, 1000)) {
      try {
        return await this.#send(['FCALL', `${this.prefix}_publish`, '1', `${this.prefix}:${topic}`, text]);
      } catch (error) {
        if (!passes(error) || Date.now() + pause > deadline) throw this.#notPublished(error);
      }
      await pauseFor(pause * (0.5 + Math.random() / 2));
    }
  }

  /**
   * Publishes to whoever is connected at this moment; nothing is kept, so nothing is repeated either. Resolves to the
   * number of nodes that it reached: 0 where none follows the topic.
   */
  async live(topic, event) {
    try {
      return await this.#send(['PUBLISH', `${this.prefix}:${topic}`, JSON.stringify(event)]);
    } catch (error) {
      throw this.#notPublished(error);
    }
  }

  close() {
    const client = this.#client;
    this.#client = undefined;
    client?.then((open) => open.isOpen && open.destroy(), () => {});
  }

  /** Sends a command. After any trouble the connection is not used again: the next attempt finds today's master. */
  async #send(command) {
    this.#client ??= this.#connect();
    const over = new AbortController();
    const lost = pauseFor(LOST, null, { signal: over.signal }).then(() => { throw new Error('Redis does not answer'); });
    lost.catch(() => {});
    try {
      return await Promise.race([this.#client.then((client) => client.sendCommand(command)), lost]);
    } catch (error) {
      this.close();
      throw error;
    } finally {
      over.abort();
    }
  }

  /** No reconnecting and no queue inside the client: what is repeated, and for how long, is decided in `record`. */
  #connect() {
    const socket = { connectTimeout: LOST, reconnectStrategy: false };
    return createClient({ url: this.#url, socket, disableOfflineQueue: true }).on('error', () => {}).connect();
  }

  #notPublished(error) {
    const message = functionIsMissing(error)
      ? `Redis has no function ${this.prefix}_publish: start a Carillon node, which loads it, or load it by hand: ` +
        'carillon redis-function | redis-cli -x FUNCTION LOAD REPLACE'
      : `Redis did not take the event: ${error.message}`;
    return new NotPublished(message, { cause: error });
  }
}

const functionIsMissing = (error) => /function not found/i.test(error.message);

/**
 * Whether another attempt makes sense. What the function refuses (TOPIC, EVENT) or the user may not do (NOPERM) stays
 * refused; a missing function is loaded by the next node that connects; everything but an answer is the network.
 */
function passes(error) {
  if (FORBIDDEN.test(error.message)) return false;
  return !(error instanceof ErrorReply) || functionIsMissing(error) || PASSING.test(error.message);
}

// `node carillon-publisher.mjs record|live TOPIC EVENT`, with CARILLON_REDIS, CARILLON_SOURCE and CARILLON_PATIENCE (s).
if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const [how, topic, event] = process.argv.slice(2);
  if (!['record', 'live'].includes(how) || !event) {
    console.error('usage: node carillon-publisher.mjs record|live TOPIC EVENT');
    process.exit(1);
  }
  const { CARILLON_REDIS = 'redis://127.0.0.1:6379', CARILLON_SOURCE = 'example', CARILLON_PATIENCE = '10' } = process.env;
  const publisher = new Publisher(CARILLON_REDIS, { source: CARILLON_SOURCE, patience: CARILLON_PATIENCE * 1000 });
  try {
    console.log(await publisher[how](topic, JSON.parse(event)));
  } catch (error) {
    if (!(error instanceof NotPublished)) throw error;
    console.error(error.message);
    process.exitCode = 1;
  }
  publisher.close();
}
