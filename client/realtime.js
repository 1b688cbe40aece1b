// @ts-check
/**
 * Carillon's browser client: tells a page at once, and reliably, that something changed in the CMS.
 *
 *     import { Realtime } from '/realtime/realtime.js';
 *     const rt = new Realtime({ token: async () => (await fetch('/api/token')).text() });
 *     rt.on('comments:42', () => reload());          // something changed: read it again from the CMS
 *     rt.onResync('comments:42', () => reload());    // at the start, and whenever events may have been missed
 *     rt.onStatus(({ state }) => { badge.textContent = state; });
 *
 * Three parts, lowest first: `Link` keeps one session with a node alive (transports, resume, tokens); `Hub` shares one Link among
 * the tabs of a user and runs in a SharedWorker (this same file) or, where there is none, in the page; `Realtime` is what pages use.
 * No part throws into the page. Apache-2.0. Guide: README.md beside this file.
 */

export const VERSION = '0.1.0';
/** What tabs and the worker say to each other. Another number: they do not mix, the tab connects by itself. */
const PORT_PROTOCOL = 1;
const KINDS = ['websocket', 'sse', 'poll'];
const NAMES = { websocket: 'WebSocket', sse: 'SSE', poll: 'long-poll' };

/** @typedef {'connecting'|'live'|'stale'|'off'} State */
/** @typedef {'websocket'|'sse'|'poll'} Transport */
/** @typedef {{state: State, since: string, transport: Transport|null, node: string|null, user: string|null, reason: string|null}} Status */
/** @typedef {{offline?: boolean, block?: Transport[], stale?: boolean, drop?: boolean}} Faults */
/** @typedef {{welcomed?: boolean, lasted?: number, planned?: boolean, token?: boolean, off?: string, after?: number, code?: number}} End */
/** @typedef {{send: ((message: any) => void)|null, close: () => void}} Pipe */
/** @typedef {{kind: Transport, topics: string[], resume: any, welcomed: boolean, adopted: boolean, asked: string[][], heard: number, sent: number, pipe: Pipe|null, end: (end: End) => void}} Session */

const now = () => Date.now();
const iso = (ms) => new Date(ms).toISOString();
const areaOf = (topic) => topic.split(':', 1)[0];
/** @param {string} pattern @param {string} topic Does a subscription to `pattern` cover `topic`? A key covers its area too. */
const covers = (pattern, topic) =>
  pattern === topic || (areaOf(pattern) === areaOf(topic) && (pattern.endsWith(':*') || !topic.includes(':')));
/** @param {unknown} token The user that a JWT names, null when it cannot be read. */
const subjectOf = (token) => {
  try {
    const body = String(token).split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(body), (c) => c.charCodeAt(0)))).sub ?? null;
  } catch { return null; }
};
/** @template T @param {Promise<T>} promise @param {number} ms @param {string} what @returns {Promise<T>} */
const within = (promise, ms, what) => new Promise((resolve, reject) => {
  const timer = setTimeout(() => reject(new Error(`${what} took longer than ${ms / 1000} s`)), ms);
  promise.then(resolve, reject).finally(() => clearTimeout(timer));
});

// ---------------------------------------------------------------------------------------------- transports

/**
 * @typedef {object} Wire What a transport is given.
 * @property {string} url
 * @property {() => string|null} token
 * @property {string[]} topics
 * @property {any} resume
 * @property {string} client
 * @property {(message: any) => void} message
 * @property {() => void} heard  bytes arrived, whatever they say
 * @property {(end: End) => void} down
 */

/** @param {Wire} wire @returns {Pipe} */
function openWebSocket(wire) {
  const socket = new WebSocket(wire.url.replace(/^http/, 'ws'));
  const send = (m) => { if (socket.readyState === 1) socket.send(JSON.stringify(m)); };
  socket.onopen = () => {
    const token = wire.token();
    send({ type: 'connect', client: wire.client, topics: wire.topics, ...(token && { token }), ...(wire.resume && { resume: wire.resume }) });
  };
  socket.onmessage = (e) => { wire.heard(); wire.message(parse(e.data)); };
  socket.onclose = (e) => wire.down(endOf(e.code));
  return { send, close: () => { socket.onopen = socket.onmessage = socket.onclose = null; socket.close(1000); } };
}

/** @param {Wire} wire @param {string} path @param {AbortSignal} signal @param {string} [cursor] */
function request(wire, path, signal, cursor) {
  const token = wire.token();
  const query = new URLSearchParams({ topics: wire.topics.join(',') });
  if (cursor) query.set('cursor', cursor);
  else if (wire.resume) query.set('resume', JSON.stringify(wire.resume));
  return fetch(`${wire.url}/${path}?${query}`, {
    signal, cache: 'no-store', credentials: 'include', headers: token ? { Authorization: `Bearer ${token}` } : {},
  });
}

/** SSE by `fetch`, not EventSource: it sees the status, the heartbeat comments and sends the token as a header. @param {Wire} wire @returns {Pipe} */
function openSse(wire) {
  const abort = new AbortController();
  (async () => {
    const answer = await request(wire, 'events', abort.signal);
    if (!answer.ok || !answer.body || !/event-stream/.test(answer.headers.get('content-type') ?? '')) return wire.down(endOfHttp(answer));
    const reader = answer.body.getReader();
    const text = new TextDecoder();
    let rest = '', data = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return wire.down({});
      wire.heard();
      const lines = (rest + text.decode(value, { stream: true })).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines.map((l) => l.replace(/\r$/, ''))) {
        if (line.startsWith('data:')) data += line.slice(5).trimStart();
        else if (!line && data) { const message = parse(data); data = ''; wire.message(message); }
      }
    }
  })().catch(() => wire.down({}));
  return { send: null, close: () => abort.abort() };
}

/** @param {Wire} wire @returns {Pipe} */
function openPoll(wire) {
  const abort = new AbortController();
  (async () => {
    for (let cursor = '', quick = 0; !abort.signal.aborted;) {
      const asked = now();
      let answer = null, body = null;
      try {
        answer = await within(request(wire, 'poll', abort.signal, cursor), 40_000, 'a poll');
        body = answer.ok ? await answer.json() : null;
      } catch { /* the network, or not JSON: counted below */ }
      if (abort.signal.aborted) return;
      if (body?.cursor) {
        quick = 0;
        cursor = body.cursor;
        wire.heard();
        for (const message of body.messages) wire.message(message);
      } else if (!cursor || (answer && answer.status < 500) || (now() - asked < 5000 && ++quick > 1)) {
        return wire.down(answer ? endOfHttp(answer) : {});
      } else {    // a proxy that cuts idle requests, or one lost answer: the same cursor asks again, nothing is lost
        await new Promise((go) => setTimeout(go, Math.random() * 500));
      }
    }
  })();
  return { send: null, close: () => abort.abort() };
}

const OPEN = { websocket: openWebSocket, sse: openSse, poll: openPoll };
const parse = (text) => { try { return JSON.parse(text); } catch { return {}; } };
/** @param {number} code @param {number} [after] @returns {End} */
const endOf = (code, after) => ({
  code, after, token: code === 4401, off: code === 4403 ? 'forbidden' : code === 4400 ? 'malformed' : undefined,
});
/** @param {Response} answer @returns {End} */
const endOfHttp = (answer) => answer.status === 401 ? endOf(4401) : answer.status === 403 ? endOf(4403)
  : { after: Number(answer.headers.get('retry-after')) * 1000 || undefined };

// ---------------------------------------------------------------------------------------------- Link

/** One session with whichever node answers, kept alive, resumed by position. Knows nothing of tabs and handlers. */
class Link {
  /** @param {{url: string, transports: Transport[], client: string, favourite?: Transport, token: (stale: boolean) => Promise<string|null>, emit: (message: any) => void}} options */
  constructor(options) {
    this.o = options;
    /** @type {Set<string>} */ this.topics = new Set();
    /** @type {Set<string>} topics whose followers have been told so */ this.followed = new Set();
    /** @type {Record<string, string>} */ this.positions = {};
    /** @type {number|undefined} */ this.at = undefined;
    /** @type {Map<string, Set<string>>} positions delivered, against doubles */ this.seen = new Map();
    /** @type {Session|null} */ this.session = null;
    /** @type {any} a WebSocket that a probe found working */ this.found = null;
    /** @type {Faults} */ this.faults = {};
    /** @type {Transport|undefined} */ this.favourite = options.favourite;
    /** @type {string|null} */ this.token = null;
    this.tokenUntil = 0;
    this.nodeLive = this.closed = this.everWelcomed = false;
    this.heartbeat = 25_000;
    this.pingEvery = 20_000;
    this.idleCut = this.short = this.checkedAt = 0;
    /** @type {(() => void)|null} */ this.hurry = null;
    /** @type {Record<string, any>} */ this.timers = {};
    /** @type {Status} */ this.status = { state: 'connecting', since: iso(now()), transport: null, node: null, user: null, reason: null };
    this.run();
  }

  // -- what the Hub calls

  /** @param {Set<string>} topics All topics that are wanted from now on. */
  follow(topics) {
    const added = [...topics].filter((t) => !this.topics.has(t));
    const gone = [...this.topics].filter((t) => !topics.has(t));
    this.topics = topics;
    for (const t of gone) this.followed.delete(t);
    for (const t of gone) delete this.positions[t];
    if (this.session?.welcomed) this.change(this.session, added, gone);
  }

  /** SSE and long-poll have no way up: what is added there needs a new request, resumed like any other. @param {Session} s @param {string[]} added @param {string[]} gone */
  change(s, added, gone) {
    if (!s.pipe?.send) return void (added.length && s.end({ planned: true }));
    if (gone.length) this.send({ type: 'unsubscribe', topics: gone });
    if (added.length) this.ask(added);
  }

  /** The page came back, or the network did. @param {string} why */
  poke(why) {
    if (this.status.reason === 'disabled' && now() - this.checkedAt > 60_000) return void this.run();
    this.hurry?.();
    const s = this.session;
    if (!s?.welcomed) return;
    if (s.pipe?.send) this.ping(2500);
    else if (now() - s.heard > this.heartbeat + 3000 && s.kind === 'sse') s.end({});
    else if (why === 'online') s.end({ planned: true });
    if (s.kind !== 'websocket') this.later('probe', 500 + Math.random() * 1500, () => this.probe());
  }

  /** @param {Faults} faults */
  simulate(faults) {
    const thawed = this.faults.stale && !faults.stale;
    this.faults = { ...faults, drop: false };
    const s = this.session;
    if (s && (faults.offline || faults.drop || faults.block?.includes(s.kind))) s.end({});
    else if (thawed) s?.end({ planned: true });
    this.update();
    if (!faults.offline) this.hurry?.();
  }

  close() {
    this.closed = true;
    for (const timer of Object.values(this.timers)) clearTimeout(timer);
    this.session?.end({});
    this.found?.pipe.close();
    this.hurry?.();
    this.off('closed');
  }

  // -- the ladder

  async run() {
    this.checkedAt = now();
    for (let attempt = 0; !this.closed;) {
      /** @type {End} */ let end;
      try {
        await this.freshToken();
        const config = await this.config();
        const kinds = this.o.transports.filter((k) => config[k] !== false);
        if (!kinds.length) return this.off('disabled');
        end = await this.climb(kinds, attempt);
      } catch (error) {
        end = {};
        if (attempt === 2) this.say('away', 'warn', `Live updates are not available at the moment: ${error instanceof Error ? error.message : error}. Trying again in the background.`);
      }
      if (this.closed) return;
      if (end.off) return this.off(end.off);
      if (end.planned) { attempt = 0; continue; }
      if (end.token) this.tokenUntil = 0;
      if (end.welcomed && (end.lasted ?? 0) > 5000) attempt = 0;
      this.update();
      // Full jitter from the first try on: a thousand pages that lose one node must not come back in one moment.
      const ceiling = Math.min(30_000, 1000 * 2 ** attempt++);
      const wait = end.after === undefined ? Math.random() * ceiling : end.after + Math.random() * Math.min(1000, end.after);
      await new Promise((go) => {
        this.later('wait', wait, () => go(null));
        this.hurry = () => this.later('wait', Math.random() * Math.min(500, wait), () => go(null));
      });
      this.hurry = null;
    }
  }

  /** Tries the transports from the favourite one down. @param {Transport[]} kinds @param {number} round @returns {Promise<End>} */
  async climb(kinds, round) {
    const patience = Math.min(5, 1.6 ** round);
    /** @type {End} */ let end = {};
    if (this.found) this.favourite = 'websocket';
    const start = Math.max(0, kinds.indexOf(/** @type {Transport} */ (this.favourite)));
    for (const kind of kinds.slice(start)) {
      end = await this.open(kind, { websocket: 2000, sse: 1600, poll: 4000 }[kind] * patience, kind !== kinds[0]);
      if (end.welcomed && !end.planned && end.after === undefined) {    // cut off: again and again soon after the start?
        this.short = (end.lasted ?? 0) < 20_000 ? this.short + 1 : 0;
        if (this.short > 2) { this.short = 0; this.favourite = kinds[kinds.indexOf(kind) + 1] ?? kind; }
      }
      if (this.closed || end.welcomed || end.planned || end.off || end.token || end.after !== undefined) return end;
    }
    this.favourite = undefined;    // nothing below works either: from the top next time
    throw new Error(`no answer from ${this.o.url} by ${kinds.map((k) => NAMES[k]).join(', ')}`);
  }

  /** One session, from opening to its end. @param {Transport} kind @param {number} patience ms until the welcome @param {boolean} below the first choice @returns {Promise<End>} */
  open(kind, patience, below) {
    return new Promise((resolve) => {
      const born = now();
      let over = false;
      /** @type {Session} */ const s = {
        kind, topics: [...this.topics], resume: this.resume(), welcomed: false, adopted: false, asked: [], heard: born, sent: born, pipe: null,
        end: (end) => {
          if (over) return;
          over = true;
          for (const name of ['patience', 'ping', 'pong', 'token', 'probe']) clearTimeout(this.timers[name]);
          s.pipe?.close();
          this.session = null;
          if (s.welcomed && end.code === 1006) this.learnIdle(now() - Math.max(s.heard, s.sent));
          if (!end.planned) this.update(s.heard);
          resolve({ ...end, welcomed: s.welcomed, lasted: now() - born });
        },
      };
      this.session = s;
      this.later('patience', patience, () => s.end({}));
      if (this.faults.offline || this.faults.block?.includes(kind)) return s.end({});
      const wire = this.wire(() => s.heard = now(), (m) => { if (!over) this.receive(s, m, below); }, (end) => s.end(end));
      wire.topics = s.topics;
      wire.resume = s.resume;
      try {
        if (kind === 'websocket' && this.found) {
          const { pipe, welcome, hand } = this.found;
          this.found = null;
          s.pipe = pipe;
          s.adopted = true;
          hand(wire);
          this.receive(s, welcome, below);
        } else {
          s.pipe = OPEN[kind](wire);
          this.log('out', kind, { type: 'connect', client: this.o.client, topics: wire.topics, resume: s.resume });
        }
      } catch { s.end({}); }
    });
  }

  /** @param {() => void} heard @param {(m: any) => void} message @param {(end: End) => void} down @returns {Wire} */
  wire(heard, message, down) {
    return { url: this.o.url, token: () => this.token, topics: [], resume: undefined, client: this.o.client, heard, message, down };
  }

  /** While a fallback serves: does WebSocket get through again? A second, empty session asks, and is taken over if it is welcomed. */
  async probe(delay = 15_000) {
    const config = await this.config().catch(() => ({}));
    const again = () => this.later('probe', delay * (0.8 + Math.random() * 0.4), () => this.probe(Math.min(delay * 2, 300_000)));
    const old = this.session;
    if (!old || old.kind === 'websocket') return;
    if (!this.o.transports.includes('websocket') || config.websocket === false || this.faults.offline || this.faults.block?.includes('websocket')) return again();
    let settled = false;
    /** @type {Pipe|undefined} */ let pipe;
    const fail = () => { if (this.found?.pipe === pipe) this.found = null; if (!settled) { settled = true; clearTimeout(timer); pipe?.close(); if (this.session === old) again(); } };
    const timer = setTimeout(fail, 5000);
    const wire = this.wire(() => {}, (m) => {
      if (m.type !== 'welcome' || settled) return;
      settled = true;
      clearTimeout(timer);
      if (this.session !== old || this.closed) return pipe?.close();
      const hand = (to) => Object.assign(wire, to);
      this.found = { pipe, welcome: m, hand };
      old.end({ planned: true });
    }, fail);
    try { pipe = openWebSocket({ ...wire, heard: () => wire.heard(), message: (m) => wire.message(m), down: (e) => wire.down(e) }); } catch { fail(); }
  }

  /** Two cuts after the same idle time: a proxy does that. Ping before it. @param {number} idle ms */
  learnIdle(idle) {
    if (idle > 2500 && Math.abs(idle - this.idleCut) < this.idleCut / 4) this.pingEvery = Math.min(this.pingEvery, Math.max(2000, idle * 0.6));
    this.idleCut = idle;
  }

  // -- messages

  /** @param {Session} s @param {any} m @param {boolean} below */
  receive(s, m, below) {
    clearTimeout(this.timers.pong);
    if (this.faults.stale && /event|resync|status|pong/.test(m.type)) return;
    this.log('in', s.kind, m);
    switch (m.type) {
      case 'welcome': {
        clearTimeout(this.timers.patience);
        s.welcomed = this.everWelcomed = true;
        this.favourite = s.kind;
        this.nodeLive = m.live !== false;
        this.heartbeat = (m.heartbeat ?? 25) * 1000;
        this.pingEvery = Math.min(this.pingEvery, this.heartbeat * 0.8);
        Object.assign(this.status, { node: m.node ?? null, user: m.user ?? null });
        this.expires(m.expires_in);
        if (s.pipe?.send) this.beat();
        else this.watch(s);
        if (below) this.say('fallback', 'info', `WebSocket does not get through to ${this.o.url} (a proxy on the way probably drops "Connection: Upgrade"). Live updates use ${NAMES[s.kind]} instead and try WebSocket again later.`);
        if (s.kind !== 'websocket') this.later('probe', 15_000 * (0.8 + Math.random() * 0.4), () => this.probe(30_000));
        if (s.adopted) this.ask([...this.topics], s.resume);
        else {
          this.tell(s.topics, m, s);
          this.change(s, [...this.topics].filter((t) => !s.topics.includes(t)), s.topics.filter((t) => !this.topics.has(t)));
        }
        break;
      }
      case 'subscribed':
        this.tell(s.asked.shift() ?? [], m, s);
        break;
      case 'event':
        this.event(s, m);
        break;
      case 'resync': {
        const fresh = m.topics.filter((t) => this.topics.has(t) && !this.followed.has(t));
        for (const t of m.topics) { if (m.positions?.[t]) this.positions[t] = m.positions[t]; else delete this.positions[t]; }
        this.tell(fresh, {}, s);
        const covered = (t) => !this.topics.has(t) && [...this.topics].every((own) => areaOf(own) !== t || fresh.includes(own));
        const rest = m.topics.filter((t) => !fresh.includes(t) && !(m.reason === 'no-position' && covered(t)));
        if (rest.length) this.o.emit({ t: 'resync', topics: rest, reason: m.reason, spread: m.spread_ms ?? 0 });
        break;
      }
      case 'unsubscribed':
        this.refuse(m.topics.filter((t) => this.topics.has(t) && !s.asked.flat().includes(t)).map((topic) => ({ topic, code: 'forbidden' })));
        break;
      case 'status': this.nodeLive = m.live; this.update(m.since && Date.parse(m.since)); break;
      case 'token-expiring': this.renew(); break;
      case 'token-accepted': this.expires(m.expires_in); break;
      case 'closing': s.end(endOf(m.code, m.reconnect_after_ms)); break;
      case 'error':
        if (m.code === 'bad-token') this.later('token', 5000, () => this.renew());
        else this.say(`error ${m.code}`, 'warn', `The node did not accept a message: ${m.code}: ${m.detail}`);
    }
    if (m.at > (this.at ?? 0)) this.at = m.at;
    this.update();
  }

  /** @param {Session} s @param {any} m */
  event(s, m) {
    const { topic, position, event } = m;
    if (position) {
      const seen = this.seen.get(topic) ?? new Set();
      this.seen.set(topic, seen);
      if (seen.has(position)) return;
      seen.add(position);
      if (seen.size > 1024) seen.delete(seen.values().next().value);
      this.positions[topic] = position;
    }
    const replayed = Boolean(position && s.resume?.positions[topic] && m.at <= (s.resume.at ?? 0));
    this.o.emit({ t: 'event', topic, position, replayed, event });
  }

  /** A welcome or `subscribed`: where the asked topics stand, which were refused. @param {string[]} asked @param {any} m @param {Session} s */
  tell(asked, m, s) {
    const refused = m.refused ?? [];
    this.refuse(refused);
    const skipped = [];
    for (const [topic, position] of Object.entries(m.positions ?? {})) {
      // A node that starts elsewhere than it was asked to would leave a hole: then read everything again.
      const held = s.resume?.positions[topic];
      if (held && held !== position && this.positions[topic] === held) skipped.push(topic);
      this.positions[topic] = /** @type {string} */ (position);
    }
    const topics = asked.filter((t) => this.topics.has(t) && !this.followed.has(t) && !refused.some((r) => r.topic === t));
    for (const t of topics) this.followed.add(t);
    if (topics.length) this.o.emit({ t: 'followed', topics });
    if (skipped.length) this.o.emit({ t: 'resync', topics: skipped, reason: 'gap', spread: 5000 });
  }

  /** @param {{topic: string, code: string}[]} refused */
  refuse(refused) {
    for (const { topic, code } of refused) {
      this.followed.delete(topic);
      delete this.positions[topic];
      this.say(`refused ${topic}`, 'warn', `“${topic}” is not followed: ${code}. ${code === 'forbidden' ? 'The token does not allow it.' : code === 'too-many' ? 'Too many topics in one session.' : 'Write area or area:key, with an area that the node knows.'}`);
      this.o.emit({ t: 'refused', topic, code });
    }
  }

  /** @param {string[]} topics @param {any} [resume] */
  ask(topics, resume) {
    if (!topics.length) return;
    this.session?.asked.push(topics);
    this.send({ type: 'subscribe', topics, ...(resume && { resume }) });
  }

  /** @param {any} message */
  send(message) {
    const s = this.session;
    if (!s?.pipe?.send) return;
    this.log('out', s.kind, message);
    s.sent = now();
    s.pipe.send(message);
  }

  resume() {
    const mine = [...this.topics];
    const positions = Object.fromEntries(Object.entries(this.positions).filter(([t]) => mine.some((p) => p === t || areaOf(p) === t)));
    return this.everWelcomed && (this.at || Object.keys(positions).length) ? { at: this.at, positions } : undefined;
  }

  // -- liveness: browsers do not show Pings to scripts, so the client asks by itself

  beat() {
    const due = now() + this.pingEvery;
    this.later('ping', this.pingEvery, () => {
      this.ping(now() - due > 5000 ? 2500 : 5000);    // late: this machine slept
      this.beat();
    });
  }

  /** @param {number} patience */
  ping(patience) {
    const s = this.session;
    this.send({ type: 'ping' });
    this.later('pong', patience, () => s?.end({}));
  }

  /** @param {Session} s */
  watch(s) {
    if (s.kind !== 'sse') return;
    this.later('ping', 5000, () => (now() - s.heard > this.heartbeat * 2 + 5000 ? s.end({}) : this.watch(s)));
  }

  // -- tokens

  async freshToken() {
    if (this.tokenUntil > now()) return;
    this.token = await within(this.o.token(Boolean(this.token)), 10_000, 'token()');
    this.tokenUntil = now() + 60_000;    // until a node says how long it lasts
  }

  /** @param {number|undefined} seconds */
  expires(seconds) {
    this.lifetime = seconds;
    if (!seconds) return void (this.tokenUntil = Infinity);
    this.tokenUntil = now() + Math.max(0, seconds - 5) * 1000;
    const early = Math.min(60, seconds * 0.25) * (1 + Math.random() * 0.3);
    this.later('token', Math.min((seconds - early) * 1000, 2 ** 31 - 1), () => this.renew());
  }

  /** Before the token ends: a fresh one over the same session; SSE has no way up, so it opens again with it. */
  async renew(wait = 2000) {
    const s = this.session;
    if (!s) return;
    clearTimeout(this.timers.token);
    try {
      this.tokenUntil = 0;
      await this.freshToken();
      if (this.session !== s) return;
      if (s.pipe?.send) this.send({ type: 'token', token: this.token });
      else if (s.kind === 'sse') s.end({ planned: true });
      else this.expires(this.lifetime);
    } catch (error) {
      if (this.session !== s) return;
      this.say('token', 'warn', `token() failed: ${error instanceof Error ? error.message : error}. Live updates end when the present token does.`);
      this.later('token', wait * (0.5 + Math.random()), () => this.renew(Math.min(wait * 2, 30_000)));
    }
  }

  // -- odds and ends

  /** @returns {Promise<any>} */
  async config() {
    if (this.faults.offline) throw new Error('offline (simulated)');
    const answer = await within(fetch(`${this.o.url}/config`, { cache: 'no-store', credentials: 'include' }), 4000, `${this.o.url}/config`)
      .catch((error) => { throw new Error(`${this.o.url}/config cannot be read (${error.message}): is the node running, and this page's origin in http.allowed_origins?`); });
    if (answer.status >= 500) throw new Error(`${this.o.url}/config answered ${answer.status}`);
    return answer.ok ? answer.json().catch(() => ({})) : {};
  }

  /** @param {string} name @param {number} ms @param {() => void} what One timer of each name. */
  later(name, ms, what) {
    clearTimeout(this.timers[name]);
    if (!this.closed) this.timers[name] = setTimeout(what, ms);
  }

  /** @param {string} reason */
  off(reason) {
    this.status.reason = reason;
    const text = { disabled: 'every transport is switched off', forbidden: 'this user may not connect', malformed: 'the node found a message malformed' }[reason];
    if (text) this.say('off', 'warn', `No live updates: ${text}. The page has to be refreshed by hand.`);
    this.update();
  }

  /** Tells the state, if it changed. @param {number} [since] */
  update(since) {
    const s = this.session?.welcomed ? this.session : null;
    const was = this.status;
    if (s) was.reason = null;
    /** @type {State} */ const state = this.closed || (!this.session && was.reason) ? 'off'
      : s && this.nodeLive && !this.faults.stale ? 'live' : this.everWelcomed ? 'stale' : 'connecting';
    const transport = s ? s.kind : null;
    if (state === was.state && transport === was.transport && this.told === was.node) return;
    this.told = was.node;
    this.status = { ...was, state, transport, since: state === was.state ? was.since : iso(since || now()) };
    this.o.emit({ t: 'status', status: this.status });
  }

  /** @param {string} key @param {string} level @param {string} text */
  say(key, level, text) { this.o.emit({ t: 'say', key, level, text }); }

  /** @param {'in'|'out'} direction @param {Transport} transport @param {any} m */
  log(direction, transport, m) {
    this.o.emit({ t: 'message', direction, transport, time: iso(now()), message: m.token ? { ...m, token: '…' } : m });
  }
}

// ---------------------------------------------------------------------------------------------- Hub

/** @typedef {{postMessage: (message: any) => void, onmessage: ((e: any) => void)|null, close?: () => void}} Port */
/** @typedef {{topics: Set<string>, tap: boolean, alive: number, answers: Map<number, (answer: any) => void>}} Tab */

/** Shares one Link among the tabs of one user. Runs in the SharedWorker, or in a page that has none. */
export class Hub {
  constructor() {
    /** @type {Map<Port, Tab>} */ this.tabs = new Map();
    /** @type {Link|null} */ this.link = null;
    /** @type {string|null} whose connection this is */ this.user = null;
    /** @type {string|null} */ this.handed = null;
    this.asked = 0;
  }

  /** @param {Port} port */
  add(port) { port.onmessage = (e) => this.hear(port, e.data); }

  /** @param {Port} port @param {any} m */
  hear(port, m) {
    const tab = this.tabs.get(port);
    if (tab) tab.alive = now();
    if (m.t === 'join') return this.join(port, m);
    if (!tab) return;
    switch (m.t) {
      case 'topics': {
        const before = tab.topics;
        tab.topics = new Set(m.topics);
        const known = m.topics.filter((t) => !before.has(t) && this.link?.followed.has(t));
        if (known.length) port.postMessage({ t: 'followed', topics: known });
        this.follow();
        break;
      }
      case 'token': tab.answers.get(m.id)?.(m); break;
      case 'poke': this.link?.poke(m.why); break;
      case 'simulate': this.link?.simulate(m.faults); break;
      case 'tap': tab.tap = true; break;
      case 'alive': port.postMessage(m); break;
      case 'bye': this.leave(port);
    }
  }

  /** @param {Port} port @param {any} m */
  join(port, m) {
    if (this.tabs.size && m.user !== this.user) return port.postMessage({ t: 'hello', v: 0 });
    this.user = m.user;
    if (!this.link) this.handed = m.token;
    this.tabs.set(port, { topics: new Set(), tap: false, alive: now(), answers: new Map() });
    port.postMessage({ t: 'hello', v: PORT_PROTOCOL, version: VERSION });
    // The tab holds this lock while it lives: it is granted here when the tab is gone, however it went.
    if (m.lock) navigator.locks.request(m.lock, () => this.leave(port));
    else if (m.lock === '') this.sweep ??= setInterval(() => { for (const [p, t] of this.tabs) if (now() - t.alive > 180_000) this.leave(p); }, 30_000);
    this.link ??= new Link({
      url: m.url, transports: m.transports, client: m.client, favourite: m.favourite,
      token: () => this.token(), emit: (message) => this.emit(message),
    });
    port.postMessage({ t: 'status', status: this.link.status });
  }

  /** @param {Port} port */
  leave(port) {
    const tab = this.tabs.get(port);
    if (!tab) return;
    this.tabs.delete(port);
    for (const answer of tab.answers.values()) answer({});
    port.close?.();
    if (this.tabs.size) return this.follow();
    this.link?.close();
    this.link = this.user = this.handed = null;
    clearInterval(this.sweep);
    this.sweep = undefined;
  }

  follow() { this.link?.follow(new Set([...this.tabs.values()].flatMap((t) => [...t.topics]))); }

  /** @param {any} m */
  emit(m) {
    for (const [port, tab] of this.tabs) if (m.t !== 'message' || tab.tap) port.postMessage(m);
  }

  /** A token from any living tab; functions cannot be posted here, so the tabs are asked in turn. @returns {Promise<string|null>} */
  async token() {
    const handed = this.handed;
    this.handed = null;
    if (handed !== null) return handed;
    let failure = 'no tab answers';
    for (const [port, tab] of [...this.tabs].reverse()) {
      const id = ++this.asked;
      const m = await new Promise((answer) => {
        tab.answers.set(id, answer);
        setTimeout(answer, 8000 / this.tabs.size + 1000, {});
        port.postMessage({ t: 'token', id });
      });
      tab.answers.delete(id);
      if ('token' in m) return m.token;
      if (m.error) failure = m.error;
    }
    throw new Error(failure);
  }
}

// ---------------------------------------------------------------------------------------------- Realtime

/** @typedef {{kind: 'event'|'resync', topic: string, fn: any, once: boolean, told: boolean}} Handler */

/** What pages use. Also an EventTarget: `status`, `event`, `resync`, `refused` and `message` arrive as CustomEvents with the same facts in `detail`. */
export class Realtime extends EventTarget {
  /** @param {{url?: string, token?: string|(() => string|null|Promise<string|null>), transports?: Transport[], shared?: boolean, user?: string}} [options] */
  constructor(options = {}) {
    super();
    /** This tab's client id: send it to the CMS as `origin`, and the echo of your own change is dropped here. */
    this.id = `tab-${Math.random().toString(36).slice(2, 10)}`;
    this.options = options;
    /** @type {Status} */ this.status = { state: 'connecting', since: iso(now()), transport: null, node: null, user: null, reason: null };
    /** @type {Set<Handler>} */ this.handlers = new Set();
    /** @type {Set<string>} */ this.followed = new Set();
    /** @type {Set<(s: Status) => void>} */ this.watchers = new Set();
    /** @type {Set<string>} */ this.said = new Set();
    /** @type {Map<string, {topics: Set<string>, reason: string}>} */ this.owed = new Map();
    /** @type {Port|null} */ this.port = null;
    /** @type {string|null} */ this.user = null;
    this.closed = this.asking = this.tapped = false;
    this.silent = 0;
    /** @type {Faults|null} */ this.faults = null;
    this.url = String(options.url ?? '/realtime').replace(/\/+$/, '');
    try { this.url = new URL(this.url, globalThis.location?.href).href; } catch { this.say('url', 'error', `The url “${options.url}” cannot be read.`); }
    const kinds = options.transports ?? KINDS;
    this.transports = /** @type {Transport[]} */ (kinds.filter((k) => KINDS.includes(k)));
    if (this.transports.length < kinds.length) this.say('transports', 'error', `Unknown transport in [${kinds}]. Known: ${KINDS.join(', ')}.`);
    this.listen();
    this.start();
  }

  /** Encodes a key as topics want it: `Realtime.topic('notifications', user.toLowerCase())`. @param {string} area @param {string|number} key */
  static topic(area, key) {
    // eslint-disable-next-line no-control-regex
    return `${area}:${String(key).replace(/[\x00-\x20\x7f%*,{}]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`)}`;
  }

  /** Calls `handler(event, {topic, position, replayed})` for every event of the topic. @param {string} topic @param {any} handler @param {{signal?: AbortSignal, once?: boolean}} [options] @returns {() => void} ends it */
  on(topic, handler, options) { return this.handle('event', topic, handler, options); }

  /** Calls `handler({topic, reason})` when the topic has to be read (again). @param {string} topic @param {any} handler @param {{signal?: AbortSignal, once?: boolean}} [options] @returns {() => void} ends it */
  onResync(topic, handler, options) {
    return this.handle('resync', topic, handler, options);
  }

  /** Ends what `on` or `onResync` began. @param {string} topic @param {any} handler */
  off(topic, handler) {
    for (const h of this.handlers) if (h.topic === topic && h.fn === handler) this.handlers.delete(h);
    this.topics();
  }

  /** Calls `handler(status)` at once and at every change. @param {(s: Status) => void} handler @param {{signal?: AbortSignal}} [options] @returns {() => void} ends it */
  onStatus(handler, options) {
    this.watchers.add(handler);
    this.call(handler, this.status);
    return this.ending(() => this.watchers.delete(handler), options?.signal);
  }

  /** Calls `handler({direction, transport, time, message})` for every raw message: for log drawers. Tokens are blacked out. @param {(m: any) => void} handler @param {{signal?: AbortSignal}} [options] */
  onMessage(handler, options) {
    this.tapped = true;
    this.post({ t: 'tap' });
    const listener = (e) => this.call(handler, e.detail);
    this.addEventListener('message', listener);
    return this.ending(() => this.removeEventListener('message', listener), options?.signal);
  }

  /** Resolves with the status once it is live, or off. @returns {Promise<Status>} */
  ready() {
    return new Promise((resolve) => {
      const stop = this.onStatus((s) => { if (s.state === 'live' || s.state === 'off') { resolve(s); queueMicrotask(() => stop()); } });
    });
  }

  /** Breaks the connection in a controlled way, to see what a page does then. `simulate({})` mends it. @param {Faults} faults */
  simulate(faults) { this.faults = faults; this.post({ t: 'simulate', faults }); }

  /** Ends everything, for good. Call it at sign-out. */
  close() {
    if (this.closed) return;
    this.closed = true;
    this.detach();
    this.gone?.abort();
    this.change({ ...this.status, state: 'off', since: iso(now()), transport: null, reason: 'closed' });
    this.handlers.clear();
    this.watchers.clear();
  }

  // -- handlers

  /** @param {'event'|'resync'} kind @param {string} topic @param {any} fn @param {{signal?: AbortSignal, once?: boolean}} [options] */
  handle(kind, topic, fn, options = {}) {
    /** @type {Handler} */ const handler = { kind, topic: String(topic), fn, once: Boolean(options.once), told: false };
    if (options.signal?.aborted || this.closed) return () => {};
    this.handlers.add(handler);
    this.topics();
    if (kind === 'resync' && this.followed.has(handler.topic)) queueMicrotask(() => this.subscribed(handler));
    return this.ending(() => { this.handlers.delete(handler); this.topics(); }, options.signal);
  }

  /** @param {() => void} stop @param {AbortSignal} [signal] */
  ending(stop, signal) {
    signal?.addEventListener('abort', stop, { once: true });
    return () => { signal?.removeEventListener('abort', stop); stop(); };
  }

  /** @param {any} fn @param {any[]} args A handler that throws is reported like one of an EventTarget, and stops nobody. */
  call(fn, ...args) {
    try {
      const result = typeof fn === 'function' ? fn(...args) : fn.handleEvent(...args);
      if (result?.catch) result.catch(report);
    } catch (error) { report(error); }
  }

  /** @param {Handler} h */
  subscribed(h) {
    if (h.told || !this.handlers.has(h)) return;
    h.told = true;
    this.run(h, { topic: h.topic, reason: 'subscribed' });
  }

  /** @param {Handler} h @param {any[]} args */
  run(h, ...args) {
    if (!this.handlers.has(h)) return;
    if (h.once) { this.handlers.delete(h); this.topics(); }
    this.call(h.fn, ...args);
  }

  /** Tells the Hub what this tab follows, once per turn. */
  topics() {
    if (this.asking) return;
    this.asking = true;
    setTimeout(() => {
      this.asking = false;
      const topics = [...new Set([...this.handlers].map((h) => h.topic))];
      for (const t of this.followed) if (!topics.includes(t)) this.followed.delete(t);
      const key = topics.join();
      if (key !== this.sentTopics) this.post({ t: 'topics', topics });
      this.sentTopics = key;
    }, 0);
  }

  // -- the connection

  /** Joins the worker of this user, or a Hub in this page. */
  async start() {
    const turn = this.turn = {};
    let token = null;
    for (let wait = 1000; ; wait = Math.min(wait * 2, 30_000)) {
      try { token = await this.getToken(); break; } catch (error) {
        this.say('token', 'warn', `token() failed: ${error instanceof Error ? error.message : error}. Live updates begin when it works.`);
        await new Promise((go) => setTimeout(go, Math.random() * wait));
      }
      if (this.closed || this.turn !== turn) return;
    }
    if (this.closed || this.turn !== turn) return;
    this.user = this.options.user ?? subjectOf(token);
    const shared = this.options.shared !== false && this.user !== null && typeof SharedWorker === 'function';
    if (!shared || !await this.joinWorker(token, turn)) {
      if (this.closed || this.turn !== turn) return;
      const [here, there] = pipe();
      new Hub().add(there);
      here.postMessage(this.joining(token));
      this.attach(here);
    }
  }

  /** @param {string|null} token @param {object} turn @returns {Promise<boolean>} */
  joinWorker(token, turn) {
    return new Promise((resolve) => {
      try {
        const name = `carillon-${VERSION} ${this.url} ${this.transports} ${this.user}`;
        const worker = new SharedWorker(new URL('./realtime.js', import.meta.url), { type: 'module', name });
        const port = worker.port;
        let settled = false;
        const done = (ok) => {
          if (settled) return;
          settled = true;
          clearTimeout(timer);
          resolve(ok);
          if (!ok) { port.postMessage({ t: 'bye' }); port.close(); }
        };
        const timer = setTimeout(done, 2500, false);
        worker.onerror = () => done(false);
        port.onmessage = (e) => {
          if (e.data.t !== 'hello') return;
          if (this.turn !== turn || e.data.v !== PORT_PROTOCOL) return done(false);
          done(true);
          this.attach(port);
        };
        // While this tab lives it holds a lock; when the worker is given it, the tab is gone.
        const lockName = `carillon-${this.id}`;
        this.lock ??= new Promise((held) => {
          const locks = globalThis.navigator?.locks;
          if (!locks) return held('');
          locks.request(lockName, () => { held(lockName); return new Promise(() => {}); }).catch(() => held(''));
        });
        this.lock.then((lock) => port.postMessage(this.joining(token, lock)));
      } catch { resolve(false); }
    });
  }

  /** @param {string|null} token @param {string} [lock] */
  joining(token, lock) {
    return { t: 'join', user: this.user, token, lock, url: this.url, transports: this.transports, client: this.id, favourite: remembered() };
  }

  /** @param {Port} port that has joined */
  attach(port) {
    this.port = port;
    port.onmessage = (e) => { this.silent = 0; if (this.port === port) this.hear(e.data); };
    if (this.tapped) this.post({ t: 'tap' });
    if (this.faults) this.simulate(this.faults);
    this.sentTopics = undefined;
    this.topics();
  }

  /** @param {State} state */
  restart(state) {
    this.detach();
    this.change({ state, since: iso(now()), transport: null, node: null, user: null, reason: null });
    this.start();
  }

  detach() {
    this.turn = undefined;
    this.post({ t: 'bye' });
    this.port = null;
    for (const timer of this.waits ?? []) clearTimeout(timer);
    this.followed.clear();
    for (const h of this.handlers) h.told = false;
  }

  /** @param {any} m */
  post(m) { this.port?.postMessage(m); }

  /** @returns {Promise<string|null>} */
  async getToken() {
    const { token } = this.options;
    return (typeof token === 'function' ? await within(Promise.resolve(token()), 10_000, 'token()') : token) ?? null;
  }

  /** @param {any} m */
  hear(m) {
    switch (m.t) {
      case 'event': {
        if (m.event?.origin === this.id) return;
        const about = { topic: m.topic, position: m.position, replayed: m.replayed };
        for (const h of [...this.handlers]) if (h.kind === 'event' && covers(h.topic, m.topic)) this.run(h, m.event, about);
        return this.fire('event', { event: m.event, ...about });
      }
      case 'followed':
        for (const t of m.topics) this.followed.add(t);
        for (const h of [...this.handlers]) if (h.kind === 'resync' && m.topics.includes(h.topic)) this.subscribed(h);
        return;
      case 'resync': return this.resync(m);
      case 'refused': this.followed.delete(m.topic); return this.fire('refused', { topic: m.topic, code: m.code });
      case 'status': remember(m.status); return this.change(m.status);
      case 'message': return this.fire('message', { direction: m.direction, transport: m.transport, time: m.time, message: m.message });
      case 'say': return this.say(m.key, m.level, m.text);
      case 'token': return void this.handToken(m.id);
    }
  }

  /** All topics of one message wait for one moment, chosen at random: the CMS must not be asked by everybody at once. @param {any} m */
  resync(m) {
    this.waits ??= new Set();
    const fresh = m.topics.filter((t) => ![...(this.owed.values())].some((o) => o.topics.has(t)));
    if (!fresh.length) return;
    const owed = { topics: new Set(/** @type {string[]} */ (fresh)), reason: m.reason };
    const key = `${Math.random()}`;
    this.owed.set(key, owed);
    const timer = setTimeout(() => {
      this.waits?.delete(timer);
      this.owed.delete(key);
      for (const topic of owed.topics) {
        const about = { topic, reason: owed.reason };
        for (const h of [...this.handlers]) if (h.kind === 'resync' && covers(h.topic, topic)) this.run(h, about);
        this.fire('resync', about);
      }
    }, Math.random() * m.spread);
    this.waits.add(timer);
  }

  /** The Hub needs a token. Another user's is never handed over: then this tab moves to that user's connection. @param {number} id */
  async handToken(id) {
    const port = this.port;
    try {
      const token = await this.getToken();
      const user = this.options.user ?? subjectOf(token);
      if (this.port !== port) return;
      if (user !== this.user) {
        this.restart('connecting');
      } else port?.postMessage({ t: 'token', id, token });
    } catch (error) { port?.postMessage({ t: 'token', id, error: error instanceof Error ? error.message : String(error) }); }
  }

  /** @param {Status} status */
  change(status) {
    const same = ['state', 'transport', 'node', 'reason'].every((k) => this.status[k] === status[k]);
    this.status = status;
    if (same) return;
    for (const w of [...this.watchers]) this.call(w, status);
    this.fire('status', status);
  }

  listen() {
    const page = globalThis.window;
    if (!page?.addEventListener) return;
    const gone = this.gone = new AbortController();
    const on = (target, type, fn) => target.addEventListener(type, fn, { signal: gone.signal });
    on(page, 'online', () => this.post({ t: 'poke', why: 'online' }));
    on(page, 'offline', () => this.post({ t: 'poke', why: 'offline' }));
    on(page.document, 'visibilitychange', () => { if (!page.document.hidden) this.post({ t: 'poke', why: 'visible' }); });
    on(page, 'pagehide', () => this.detach());
    on(page, 'pageshow', (e) => { if (e.persisted && !this.closed) this.start(); });
    const alive = setInterval(() => {    // a worker that answers nothing for a minute is dead
      if (++this.silent > 3 && this.port) this.restart('stale');
      this.post({ t: 'alive' });
    }, 20_000);
    gone.signal.addEventListener('abort', () => clearInterval(alive));
  }

  /** @param {string} type @param {any} detail */
  fire(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  /** Each thing once. @param {string} key @param {string} level @param {string} text */
  say(key, level, text) {
    if (this.said.has(key)) return;
    this.said.add(key);
    /** @type {any} */ (console)[level](`[carillon] ${text}`);
  }
}

const report = (error) => { if (typeof reportError === 'function') reportError(error); else console.error(error); };

/** Two ports that are joined, within one page. @returns {[Port, Port]} */
function pipe() {
  const end = () => /** @type {Port} */ ({ onmessage: null, postMessage: () => {} });
  const a = end(), b = end();
  a.postMessage = (data) => queueMicrotask(() => b.onmessage?.({ data }));
  b.postMessage = (data) => queueMicrotask(() => a.onmessage?.({ data }));
  return [a, b];
}

/** The transport that worked last in this tab, so that a reload does not try the others again; for ten minutes. @returns {Transport|undefined} */
function remembered() {
  try {
    const [kind, until] = (sessionStorage.getItem('carillon') ?? '').split(' ');
    return Number(until) > now() ? /** @type {Transport} */ (kind) : undefined;
  } catch { return undefined; }
}

/** @param {Status} status */
function remember({ state, transport }) {
  try { if (state === 'live' && transport) sessionStorage.setItem('carillon', `${transport} ${now() + 600_000}`); } catch { /* no storage here */ }
}

// This file is its own SharedWorker script.
if ('SharedWorkerGlobalScope' in globalThis) {
  const hub = new Hub();
  /** @type {any} */ (globalThis).onconnect = (e) => hub.add(/** @type {any} */ (e.ports[0]));
}
