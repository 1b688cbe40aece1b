//! What pages use: `Realtime`, its handlers and its status. Nothing throws into the page.

import { KINDS, SignedOut, areaOf, beginning, covers, iso, isSame, isTopic, minus, random, topicOf, wall } from './protocol.js';
import { Connection } from './connection.js';
import { remember, tabId } from './tab.js';

/** @import { RealtimeOptions, Status } from '../realtime.d.ts' */

const report = (error) => { if (typeof reportError === 'function') reportError(error); else console.error(error); };

/** Calls what a page gave; what it throws is reported, and stops nobody. */
function call(fn, ...args) {
  try {
    const result = typeof fn === 'function' ? fn(...args) : fn.handleEvent(...args);
    if (result?.catch) result.catch(report);
  } catch (error) { report(error); }
}

/** Fires CustomEvents too: `status`, `event`, `resync`, `refused`, `message`. */
export class Realtime extends EventTarget {
  static SignedOut = SignedOut;

  handlers = new Set();
  watchers = new Set();
  waiting = new Set();
  said = new Set();
  /** topic → {gen, state: 'asked' | 'followed' | 'refused', from} */
  records = new Map();
  gen = 0;
  owed = new Map();    // resyncs that wait for their moment
  faults = /** @type {any} */ (null);
  closed = false;
  asking = false;
  tapped = false;
  wasLive = false;

  /** @param {RealtimeOptions} [options] */
  constructor(options = {}) {
    super();
    this.id = `${tabId()}.${Math.random().toString(36).slice(2, 8)}`;
    this.options = options;
    this.status = beginning();
    this.url = String(options.url ?? '/realtime').replace(/\/+$/, '');
    const { location, document } = globalThis;
    try { this.url = new URL(this.url, /^http/.test(location?.protocol) ? location.href : document?.baseURI).href; } catch { this.say('url', 'error', `Not a URL: ${this.url}`); }
    const kinds = options.transports ?? KINDS;
    this.transports = kinds.filter((k) => KINDS.includes(k));
    if (this.transports.length < kinds.length) this.say('transports', 'error', `Transports: ${KINDS}; not [${kinds}]`);
    this.start = { ...options.start, positions: { ...options.start?.positions } };
    this.connection = new Connection(this);
    this.connection.start();
  }

  // Explained in realtime.d.ts.

  static topic(area, key) { return topicOf(area, key); }

  on(topic, handler, options) { return this.handle('event', topic, handler, options); }

  onResync(topic, handler, options) { return this.handle('resync', topic, handler, options); }

  off(topic, handler) {
    for (const h of this.handlers) if (h.topic === topic && h.fn === handler) this.handlers.delete(h);
    this.topics();
  }

  onStatus(handler, options) {
    const watcher = { fn: handler, told: null };
    this.watchers.add(watcher);
    const stop = this.ending(() => this.watchers.delete(watcher), options?.signal);
    this.announce(watcher);
    if (this.closed) this.watchers.clear();
    return stop;
  }

  onMessage(handler, options) {
    this.tapped = true;
    this.connection.post({ t: 'tap' });
    const listener = (e) => call(handler, e.detail);
    this.addEventListener('message', listener, options);
    return () => this.removeEventListener('message', listener);
  }

  ready() { return new Promise((resolve) => { this.waiting.add(resolve); this.settle(); }); }

  simulate(faults) { this.faults = { ...faults, drop: false }; this.connection.post({ t: 'simulate', faults }); }

  connect() { if (!this.closed && this.status.state === 'off') this.connection.restart(); }

  close() {
    if (this.closed) return;
    this.closed = true;
    this.connection.end();
    this.forget();
    this.change({ ...this.status, state: 'off', transport: null, reason: 'closed', late: [] });
    this.handlers.clear();
    this.watchers.clear();
  }

  // -- handlers

  handle(kind, topic, fn, options) {
    const handler = { kind, topic: String(topic), fn, once: Boolean(options?.once), told: null };
    if (this.closed) return () => {};
    this.handlers.add(handler);
    this.topics();
    if (kind === 'resync' && this.records.get(handler.topic)?.state === 'followed') queueMicrotask(() => this.subscribed(handler));
    return this.ending(() => { this.handlers.delete(handler); this.topics(); }, options?.signal);
  }

  ending(stop, signal) {
    if (signal?.aborted) stop();
    signal?.addEventListener('abort', stop, { once: true });
    return () => { signal?.removeEventListener('abort', stop); stop(); };
  }

  /** Once for each record: what was refused and is followed again has to be read again. */
  subscribed(h) {
    const record = this.records.get(h.topic);
    if (h.told === record || record?.state !== 'followed') return;
    h.told = record;
    this.run(h, { topic: h.topic, reason: 'subscribed' });
  }

  run(h, ...args) {
    if (!this.handlers.has(h)) return;
    if (h.once) { this.handlers.delete(h); this.topics(); }
    call(h.fn, ...args);
  }

  // -- topics

  /** What is wanted now: one record per topic, with a number that tells it from an earlier one. Says whether it changed. */
  reckon() {
    const wanted = new Set([...this.handlers].map((h) => h.topic));
    const gone = minus(this.records.keys(), wanted), added = minus(wanted, this.records);
    for (const topic of gone) this.records.delete(topic);
    for (const topic of added) this.records.set(topic, { gen: ++this.gen, state: 'asked', from: this.from(topic) });
    for (const topic of added) if (!isTopic(topic)) this.refused(topic, 'bad-topic');
    return added.length + gone.length > 0;
  }

  /** Where the page that the server rendered stands in a topic; told once. */
  from(topic) {
    const { positions, at = 0 } = this.start, area = areaOf(topic);
    return positions[topic] && { at, positions: { [topic]: positions[topic], [area]: positions[area] } };
  }

  /** For the hub. A topic that no node would take is not asked for. */
  asked() {
    return [...this.records].filter(([topic]) => isTopic(topic)).map(([topic, { gen, from }]) => ({ topic, gen, from }));
  }

  /** Tells the hub what this tab follows, once per turn. */
  topics() {
    if (this.asking) return;
    this.asking = true;
    setTimeout(() => {
      this.asking = false;
      if (this.reckon()) this.connection.post({ t: 'topics', topics: this.asked() });
      this.settle();
    }, 0);
  }

  /** A new connection: everything is asked for anew. */
  forget() {
    for (const timer of this.owed.values()) clearTimeout(timer);
    this.owed.clear();
    this.records.clear();
  }

  refused(topic, code) {
    const record = this.records.get(topic);
    this.records.set(topic, { ...record, state: 'refused', code });
    if (record.code === code) return;
    this.say(`refused ${topic}`, 'warn', `“${topic.slice(0, 100)}” is not followed: ${code}.`);
    this.fire('refused', { topic, code });
  }

  settle() {
    const { state } = this.status;
    if (state !== 'off' && (state !== 'live' || this.asking || [...this.records.values()].some((r) => r.state === 'asked'))) return;
    for (const go of this.waiting) go(this.status);
    this.waiting.clear();
  }

  // -- what comes

  hear(m) {
    const record = m.gen && this.records.get(m.topic);
    if (m.gen && record?.gen !== m.gen) return;    // about an earlier subscription
    switch (m.t) {
      case 'event': {
        if (m.event?.origin === this.id) return;
        const { event, topic, position, replayed } = m;
        for (const h of [...this.handlers]) if (h.kind === 'event' && covers(h.topic, topic)) this.run(h, event, { topic, position, replayed });
        return this.fire('event', m);
      }
      case 'followed': {
        Object.assign(record, { state: 'followed', from: undefined, code: undefined });
        delete this.start.positions[m.topic];
        for (const h of [...this.handlers]) if (h.kind === 'resync' && h.topic === m.topic) { if (m.resumed) h.told = record; else this.subscribed(h); }
        return this.settle();
      }
      case 'refused': this.refused(m.topic, m.code); return this.settle();
      case 'resync': return this.resync(m);
      case 'status': remember(m.status); return this.change(m.status);
      case 'message': return this.fire('message', m);
      case 'say': return this.say(m.key, m.level, m.text);
    }
  }

  /** At a random moment, one for all topics: the CMS must not be asked by everybody at once. */
  resync(m) {
    const wait = random(m.spread);
    for (const topic of m.topics) {
      if (this.owed.has(topic)) continue;
      this.owed.set(topic, setTimeout(() => {
        this.owed.delete(topic);
        const about = { topic, reason: m.reason };
        for (const h of [...this.handlers]) if (h.kind === 'resync' && covers(h.topic, topic)) this.run(h, about);
        this.fire('resync', about);
      }, wait));
    }
  }

  // -- status

  /** @param {any} status */
  change(status) {
    if (this.closed && status.reason !== 'closed') return;
    if (this.wasLive && status.state === 'connecting') status = { ...status, state: 'stale' };
    if (isSame(this.status, status)) return;
    const since = status.state === this.status.state ? this.status.since : status.since;
    this.wasLive ||= status.state === 'live';
    this.status = Object.freeze({ ...status, since: status.reason === 'closed' ? iso(wall()) : since });
    const { status: told } = this;
    for (const watcher of [...this.watchers]) this.announce(watcher);
    if (this.status === told) this.fire('status', told);
    this.settle();
  }

  /** Each hears the newest, once: also when a handler before it has changed it. */
  announce(watcher) {
    if (!this.watchers.has(watcher) || watcher.told === this.status) return;
    watcher.told = this.status;
    call(watcher.fn, this.status);
  }

  fire(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  say(key, level, text) {
    if (this.said.has(key)) return;
    this.said.add(key);
    /** @type {any} */ (console)[level](`[carillon] ${text}`);
  }
}
