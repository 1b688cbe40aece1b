//! What pages, workers and nodes agree on: names, topics, tokens, ends of a connection, and the status that pages see.
//! Pure: no timers, no network.

/** @import { Status } from '../realtime.d.ts' */

export const VERSION = '0.2.0';
/** The language of page and worker. A worker that speaks another one is left alone. */
export const PORT_PROTOCOL = 'port-2';

export const NAMES = { websocket: 'WebSocket', sse: 'SSE', poll: 'long-poll' };
export const KINDS = Object.keys(NAMES);

/** Milliseconds of a clock that nobody sets. */
export const now = () => performance.now();
export const wall = () => Date.now();
export const random = (/** @type {number} */ ms) => Math.random() * ms;
export const around = (/** @type {number} */ ms) => ms * 0.8 + random(ms * 0.4);
export const iso = (/** @type {number} */ ms) => new Date(ms).toISOString();
export const minus = (all, without) => [...all].filter((item) => !without.has(item));
export const textOf = (error) => error?.message ?? String(error);
export const sleep = (ms) => new Promise((go) => setTimeout(go, ms));
export const parse = (text) => { try { return Object(JSON.parse(text)); } catch { return {}; } };

export const TIMERS = { set: (what, ms) => setTimeout(what, ms), clear: (timer) => clearTimeout(timer) };

/** Timers with names: what is set anew replaces what was. */
export class Timers {
  timers = {};
  over = false;

  /** @param {typeof TIMERS} env */
  constructor(env) { this.env = env; }

  later(name, ms, what) {
    this.cancel(name);
    if (!this.over) this.timers[name] = this.env.set(what, ms);
  }

  cancel(name) { this.env.clear(this.timers[name]); }

  cancelAll() { Object.keys(this.timers).forEach((name) => this.cancel(name)); }
}

/** Rejects when there is no answer in time. */
export const within = (promise, ms, { set, clear } = TIMERS) => new Promise((resolve, reject) => {
  const timer = set(() => reject(new Error(`no answer in ${ms / 1000} s`)), ms);
  Promise.resolve(promise).finally(() => clear(timer)).then(resolve, reject);
});

// -------- topics

export const areaOf = (topic) => topic.split(':', 1)[0];
export const isWhole = (topic) => topic.endsWith(':*');
/** Does a subscription to `pattern` cover `topic`? A key covers its area too. */
export const covers = (pattern, topic) =>
  pattern === topic || (areaOf(pattern) === areaOf(topic) && (isWhole(pattern) || !topic.includes(':')));

const CONTROL = '\\0- \\x7f-\\x9f';
const ENCODED = new RegExp(`[${CONTROL}%*,{}]`, 'g');
const TOPIC = new RegExp(`^[a-z][a-z0-9-]{0,31}(:(\\*|([^${CONTROL}%*,{}]|%[0-9A-Fa-f]{2})+))?$`);
export const bytesOf = (text) => new TextEncoder().encode(text);

/** `area:key`, the key encoded as nodes want it (contract, 1). */
export const topicOf = (area, key) => `${area}:${String(key).replace(ENCODED, (c) =>
  Array.from(bytesOf(c), (byte) => `%${byte.toString(16).padStart(2, '0').toUpperCase()}`).join(''))}`;

/** Is it worth asking a node for it? One bad topic must not cost all tabs their connection. */
export const isTopic = (topic) => TOPIC.test(topic) && bytesOf(topic.slice(topic.indexOf(':') + 1)).length <= 200
  && new TextDecoder().decode(bytesOf(topic)) === topic;    // no half of a surrogate pair

/** Bytes of topics and positions that go into one message: a node takes 64 KB, the token included. */
export const MESSAGE = 48_000;

// -------- tokens

const claimsOf = (token) => {
  const body = token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(body), (c) => c.charCodeAt(0))));
};
/** The claims of a JWT; null for anything else. */
export const claims = (token) => { try { return Object(claimsOf(token)); } catch { return null; } };
export const subjectOf = (token) => claims(token)?.sub ?? null;

/** What is wrong with a token that cannot be one, in words that do not give it away; '' for one that may be. */
export function flawOf(token) {
  if (typeof token !== 'string') return typeof token;
  if (!token.trim()) return 'an empty answer';
  if (/^\s*</.test(token)) return 'an HTML page: is the session over?';
  if (/^\s*[{[]/.test(token)) return 'a JSON document';
  return /[^!-~]/.test(token) || token.length > 8192 ? `${token.length} characters, no token` : '';
}

/** `token()` throws it, or answers null, when nobody is signed in. */
export class SignedOut extends Error { name = 'SignedOut'; }

// -------- ends of a connection

/**
 * How a connection ended, for the link: `after` (ms) when to come back, `token`: with a new one, `less`: with fewer topics in a message, `off`: never.
 * @typedef {{ code?: number, after?: number, token?: boolean, less?: boolean, off?: string, planned?: boolean, disabled?: boolean }} End
 */

/** @returns {End} */
export const endOf = (code, after) => ({
  code, after: after >= 0 ? Math.min(after, 60_000) : undefined, token: code === 4401, less: code === 1009, off: { 4403: 'forbidden', 4400: 'malformed' }[code],
});

/** A 403 is final only in the node's own words: a firewall may mean this way alone. @returns {End} */
export const endOfHttp = (answer) => answer?.status === 401 ? endOf(4401)
  : answer?.status === 403 && /problem/.test(answer.headers.get('content-type')) ? endOf(4403)
    : endOf(answer?.status === 413 ? 1009 : 0, parseFloat(answer?.headers.get('retry-after')) * 1000);

// -------- status

/** @returns {Status} */
export const beginning = () => Object.freeze({ state: 'connecting', since: iso(wall()), transport: null, node: null, user: null, reason: 'starting', late: [] });
const bare = (status) => JSON.stringify({ ...status, since: 0 });
/** All but since when. */
export const isSame = (a, b) => bare(a) === bare(b);
