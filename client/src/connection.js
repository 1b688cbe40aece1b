//! A page's way to its hub: in the worker of its user, or in the page itself. One AbortSignal per try.

import { PORT_PROTOCOL, SignedOut, VERSION, beginning, flawOf, now, random, sleep, subjectOf, textOf, within } from './protocol.js';
import { Hub } from './hub.js';
import { WORKER, pipe } from './worker.js';
import { remembered } from './tab.js';

/** ms that a worker may take to say hello. */
const HELLO = 8000;
const TOKEN = 10_000;
/** ms between two signs of life. */
const ALIVE = 20_000;

/** Does the browser keep a SharedWorker for the next page? Asked of a constructor that then fails. */
const lasts = () => {
  let asked = false;
  try { new SharedWorker('https://:', /** @type {any} */ ({ get extendedLifetime() { return asked = true; } })); } catch { /* as meant */ }
  return asked;
};

export class Connection {
  run = new AbortController();
  port = /** @type {any} */ (null);
  user = /** @type {string | null} */ (null);
  alone = true;
  silent = 0;
  quick = 0;
  startedAt = -Infinity;

  /** @param {import('./page.js').Realtime} page */
  constructor(page) {
    this.page = page;
    this.listen();
  }

  /** Joins the worker of this user, or a hub in this page. */
  async start() {
    const { page } = this;
    const { signal } = this.run = new AbortController();
    // Whoever starts again and again does it less and less often.
    this.quick = now() - this.startedAt < 10_000 ? this.quick + 1 : 0;
    this.startedAt = now();
    await (this.quick > 1 ? sleep(Math.min(30_000, random(250 * 2 ** this.quick))) : undefined);    // at least until the page has said what it wants
    if (globalThis.document?.['prerendering']) await new Promise((go) => document.addEventListener('prerenderingchange', go, { once: true }));
    if (signal.aborted) return;
    this.meet();
    let { token } = page.start;
    page.start = { ...page.start, token: undefined };
    // Who is signed in decides which worker it is. A page that cannot say so goes on alone, and asks again there.
    if (token === undefined && this.isShareable() && page.options.user === undefined) token = await this.token([...page.records.keys()]).catch(() => undefined);
    if (signal.aborted) return;
    if (token !== null && flawOf(token)) token = undefined;
    this.user = page.options.user ?? subjectOf(token);
    if (this.isShareable() && this.user !== null && await this.joinWorker(token, signal) || signal.aborted) return;
    const [here, there] = pipe();
    new Hub().add(there);
    this.alone = true;
    this.attach(here, token);
  }

  isShareable() { return this.page.options.shared !== false && typeof SharedWorker === 'function'; }

  /** A token from the page; null: the cookie is the token. */
  async token(topics) {
    const { token } = this.page.options;
    if (typeof token !== 'function') return token ?? null;
    const given = await within(Promise.resolve(token({ topics })), TOKEN);
    if (given === null) throw new SignedOut();
    return typeof given === 'string' ? given.trim() : given;
  }

  async joinWorker(token, signal) {
    try {
      const script = new URL(`${this.page.url}/realtime.js`);
      if (globalThis.origin && script.origin !== globalThis.origin) return false;
      const long = lasts();
      const name = `${WORKER}${VERSION} ${PORT_PROTOCOL} ${long ? 'long' : 'short'} ${this.page.url} ${this.page.transports} ${this.user}`;
      const worker = new SharedWorker(script, /** @type {any} */ ({ type: 'module', name, ...(long && { extendedLifetime: true }) }));
      const { port } = worker;
      const life = await within(new Promise((answer) => {
        port.onmessage = (e) => { if (e.data.t === 'hello') answer(e.data.v === PORT_PROTOCOL && e.data.life); };
        worker.onerror = signal.onabort = () => answer('');
        port.postMessage({ t: 'hi' });
      }), HELLO).catch(() => '');
      worker.onerror = signal.onabort = null;
      // Until it is told to join, a worker that wakes up late has no tab and opens nothing.
      if (!life || signal.aborted) { port.close(); return false; }
      this.alone = false;
      this.attach(port, token);
      // The worker holds this lock while it lives.
      globalThis.navigator?.locks?.request(life, { signal }, () => { if (this.port === port) this.restart(); }).catch(() => {});
      return true;
    } catch { return false; }    // no worker here: forbidden
  }

  attach(port, token) {
    const { page } = this;
    this.port = port;
    port.onmessage = (e) => { this.silent = 0; if (this.port === port) this.hear(e.data); };
    page.reckon();
    const [client] = page.id.split('.');
    this.post({
      t: 'join', token, topics: page.asked(), url: page.url, transports: page.transports, client, favourite: remembered(),
      tap: page.tapped, was: page.wasLive, config: page.start.config,
    });
    if (page.faults) this.post({ t: 'simulate', faults: page.faults });
  }

  /** @param {'bye' | 'close'} how */
  restart(how = 'bye') {
    this.detach(how);
    this.page.forget();
    this.page.change({ ...beginning(), state: this.page.wasLive ? 'stale' : 'connecting' });
    this.start();
  }

  /** @param {'bye' | 'close'} how  `bye`: the next page of this tab may come at once */
  detach(how) {
    this.run.abort();
    this.channel?.close();
    this.post({ t: this.alone ? 'close' : how });    // what runs in the page itself ends with it
    if (!this.port) return;
    this.port.onmessage = null;    // browsers keep a worker's port while the worker lives; it must not keep this page's Realtime
    this.port.close();
    this.port = null;
  }

  end() {
    this.detach('close');
    this.gone.abort();
  }

  post(m) { this.port?.postMessage(m); }

  hear(m) {
    switch (m.t) {
      case 'token': return void this.handToken(m);
      case 'gone': return this.restart();
      case 'status': if (m.status.state === 'live' && this.page.status.state !== 'live') this.channel?.postMessage(0);
    }
    this.page.hear(m);
  }

  /** Another user's token is never handed over: this tab moves to that user's connection. */
  async handToken({ id, topics }) {
    const { port, page } = this;
    const answer = (m) => { if (this.port === port) this.post({ t: 'token', id, ...m }); };
    try {
      const token = await this.token(topics);
      if (this.port !== port) return;
      const user = page.options.user ?? subjectOf(token);
      const known = user !== null && this.user === null;
      if (known && this.isShareable() || !known && user !== this.user && !flawOf(token)) {
        page.start = { ...page.start, token };
        return this.restart('close');
      }
      this.user = user ?? this.user;
      answer({ token: token === undefined ? '' : token });
    } catch (error) { answer(error.name === 'SignedOut' ? { signedOut: true } : { error: textOf(error) }); }
  }

  /** One tab's sign-in is heard by those that are signed out. */
  meet() {
    if (typeof BroadcastChannel !== 'function') return;
    const channel = this.channel = new BroadcastChannel(`carillon ${this.page.url}`);
    /** @type {any} */ (channel).unref?.();
    channel.onmessage = () => { if (this.page.status.reason === 'signed-out') this.page.connect(); };
  }

  // -- the page's own life

  listen() {
    const { page } = this;
    const view = globalThis.window;
    const { signal } = this.gone = new AbortController();
    const alive = setInterval(() => {    // a worker that answers nothing for a minute is dead
      if (this.port && ++this.silent > 3) this.restart();
      this.post({ t: 'alive' });
    }, ALIVE);
    signal.addEventListener('abort', () => clearInterval(alive));
    if (!view?.addEventListener) return;
    const on = (target, type, fn) => target.addEventListener(type, fn, { signal });
    const poke = (e) => { if (!view.document.hidden) this.post({ t: 'poke', why: e.type }); };
    on(view, 'online', poke);
    on(view, 'offline', poke);
    on(view.document, 'visibilitychange', poke);
    on(view, 'pagehide', () => { this.detach('bye'); page.forget(); });
    on(view, 'pageshow', (e) => { if (e.persisted) { this.quick = 0; this.startedAt = -Infinity; this.restart(); } });
  }
}
