// @ts-check
/**
 * Carillon's browser client: tells a page at once, and reliably, that something changed in the CMS. Guide: README.md; types: realtime.d.ts.
 * `Link` keeps one session with a node alive; `Hub` shares a Link among the tabs of a user, in a SharedWorker (this same file) or in
 * the page; `Realtime` is what pages use. Nothing throws into the page. Apache-2.0.
 */

export const VERSION = '0.1.0';
/** The language of tabs and worker. */
const PORT_PROTOCOL = 1;
const NAMES = { websocket: 'WebSocket', sse: 'SSE', poll: 'long-poll' };
const KINDS = Object.keys(NAMES);

/** @import { RealtimeOptions, Status } from './realtime.d.ts' */

const now = () => Date.now();
const random = (ms) => Math.random() * ms;
const around = (ms) => ms * 0.8 + random(ms * 0.4);
const iso = (ms) => new Date(ms).toISOString();
/** @returns {Status} */
const beginning = () => ({ state: 'connecting', since: iso(now()), transport: null, node: null, user: null, reason: null });
const textOf = (error) => error?.message ?? String(error);
const minus = (a, b) => [...a].filter((t) => !b.has(t));
const areaOf = (topic) => topic.split(':', 1)[0];
/** Does a subscription to `pattern` cover `topic`? A key covers its area too. */
const covers = (pattern, topic) =>
  pattern === topic || (areaOf(pattern) === areaOf(topic) && (pattern.endsWith(':*') || !topic.includes(':')));
/** Whom a JWT names. */
const subjectOf = (token) => {
  try {
    const body = String(token).split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(body), (c) => c.charCodeAt(0)))).sub ?? null;
  } catch { return null; }
};
const sleep = (ms) => new Promise((go) => setTimeout(go, ms));
const within = (promise, ms) => new Promise((resolve, reject) => {
  const timer = setTimeout(() => reject(new Error(`no answer in ${ms / 1000} s`)), ms);
  Promise.resolve(promise).finally(() => clearTimeout(timer)).then(resolve, reject);
});

// -------- transports

// Each is given a wire (see Link) and returns {send or null, close}.

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

function request(wire, path, signal, cursor) {
  const token = wire.token();
  const query = new URLSearchParams({ topics: wire.topics.join(',') });
  if (cursor) query.set('cursor', cursor);
  else if (wire.resume) query.set('resume', JSON.stringify(wire.resume));
  return fetch(`${wire.url}/${path}?${query}`, {
    signal, cache: 'no-store', credentials: 'include', headers: token ? { Authorization: `Bearer ${token}` } : {},
  });
}

/** By `fetch`, not EventSource: it sees status and heartbeats, and sends the token as a header. */
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

function openPoll(wire) {
  const abort = new AbortController();
  (async () => {
    for (let cursor = '', failed = 0; ;) {
      const asked = now();
      let answer = /** @type {Response} */ (null);
      const body = await within(request(wire, 'poll', abort.signal, cursor).then((a) => { answer = a; return a.ok && a.json(); }), 35_000).catch(() => null);
      if (abort.signal.aborted) return;
      if (body?.cursor) {
        failed = 0;
        cursor = body.cursor;
        wire.heard();
        body.messages.forEach(wire.message);
      // A proxy cuts idle requests, an answer gets lost: the same cursor asks again, if there still is a node.
      } else if (!cursor || answer?.status < 500 || (now() - asked < 5000 && failed++) || !await wire.reachable()) return wire.down(endOfHttp(answer));
      else await sleep(random(500));
    }
  })();
  return { send: null, close: () => abort.abort() };
}

const OPEN = { websocket: openWebSocket, sse: openSse, poll: openPoll };
const parse = (text) => { try { return JSON.parse(text) ?? {}; } catch { return {}; } };
const endOf = (code, after) => ({
  code, after, token: code === 4401, off: code === 4403 ? 'forbidden' : code === 4400 ? 'malformed' : undefined,
});
/** A 403 is final only in the node's own words: a firewall may mean this way alone. */
const endOfHttp = (answer) => answer?.status === 401 ? endOf(4401)
  : answer?.status === 403 && /problem/.test(answer.headers.get('content-type')) ? endOf(4403)
    : { after: answer?.headers.get('retry-after') * 1000 || undefined };

// -------- Link

/** Knows no tabs. */
class Link {
  topics = new Set();
  followed = new Set();    // whose followers have been told so
  refused = new Map();
  positions = {};
  at = 0;
  seen = new Set();    // what was delivered lately, against doubles
  session = null;    // the connection of the moment
  faults = {};
  token = null;
  tokenUntil = 0;
  nodeLive = false;
  closed = false;
  everWelcomed = false;
  heartbeat = 25_000;
  pingEvery = 20_000;
  pinged = false;
  idleCut = 0;
  short = 0;
  checkedAt = 0;
  hurry = null;    // cuts the wait for the next try short
  timers = {};
  status = beginning();

  constructor(options) {
    this.o = options;
    this.favourite = options.favourite;
    this.run();
  }

  follow(topics) {
    const added = minus(topics, this.topics);
    const gone = minus(this.topics, topics);
    this.topics = topics;
    for (const t of gone) { this.followed.delete(t); this.refused.delete(t); delete this.positions[t]; }
    if (this.session?.welcomed) this.change(this.session, added, gone);
  }

  /** SSE and long-poll have no way up: what is added there needs a new request. */
  change(s, added, gone) {
    if (!s.pipe?.send) return void (added.length && s.end({ planned: true }));
    if (gone.length) this.send({ type: 'unsubscribe', topics: gone });
    if (!added.length) return;
    s.asked.push(added);
    this.send({ type: 'subscribe', topics: added });
  }

  /** The page came back, or the network did. */
  poke(why) {
    if (this.status.reason === 'disabled' && now() - this.checkedAt > 60_000) return this.again();
    this.hurry?.();
    const s = this.session;
    if (!s?.welcomed) return;
    if (s.pipe?.send) this.ping(2500);
    else if (now() - s.heard > this.heartbeat + 3000 && s.kind === 'sse') s.end({});
    else if (s.kind !== 'websocket') this.later('probe', 500 + random(1500), () => this.probe(15_000, why === 'online'));
  }

  /** After `off`. */
  again() {
    this.tokenUntil = 0;
    this.run();
  }

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
    this.hurry?.();
    this.off('closed');
  }

  // -- the ladder

  async run() {
    this.checkedAt = now();
    for (let attempt = 0; !this.closed;) {
      let end;
      try {
        await this.freshToken();
        const kinds = this.kinds(await this.config());
        if (!kinds.length) return this.off('disabled');
        end = await this.climb(kinds, attempt);
      } catch (error) {
        end = {};
        if (attempt === 2) this.say('away', 'warn', `No live updates at the moment: ${textOf(error)}. Trying on.`);
      }
      if (this.closed) return;
      if (end.off) return this.off(end.off);
      if (end.planned) { attempt = 0; continue; }
      if (end.token) this.tokenUntil = 0;
      if (end.welcomed && (end.lasted ?? 0) > 5000) attempt = 0;
      this.update();
      // Full jitter from the first try on: a lost node's pages come back at different moments.
      const ceiling = Math.min(30_000, 1000 * 2 ** attempt++);
      const after = Math.min(end.after, 60_000);
      const wait = after >= 0 ? after + random(Math.min(1000, after)) : random(ceiling);
      await new Promise((go) => {
        this.later('wait', wait, () => go(null));
        this.hurry = () => { if (!(after >= 0)) this.later('wait', random(Math.min(500, wait)), () => go(null)); };
      });
      this.hurry = null;
    }
  }

  kinds(config) { return this.o.transports.filter((k) => config[k] !== false && (k !== 'websocket' || typeof WebSocket === 'function')); }

  async climb(kinds, round) {
    const patience = Math.min(5, 1.6 ** round);
    let end = {};
    const start = Math.max(0, kinds.indexOf(this.favourite));
    for (const kind of kinds.slice(start)) {
      end = await this.open(kind, { websocket: 2000, sse: 1600, poll: 4000 }[kind] * patience, kind !== kinds[0]);
      if (end.welcomed && !end.planned && end.after === undefined) {    // cut off: again and again soon after the start?
        this.short = (end.lasted ?? 0) < 20_000 ? this.short + 1 : 0;
        if (this.short > 2) this.favourite = kinds[kinds.indexOf(kind) + 1];
      }
      if (this.closed || end.welcomed || end.planned || end.off || end.token || end.after !== undefined) return end;
    }
    this.favourite = undefined;    // nothing below works either: from the top next time
    throw new Error(`no answer from ${this.o.url}`);
  }

  open(kind, patience, below) {
    return new Promise((resolve) => {
      const born = now();
      let over = false;
      const s = {
        kind, topics: new Set(this.topics), resume: this.resume(), welcomed: false, replaying: true, asked: [], heard: born, sent: born,
        pipe: null,
        end: (end) => {
          if (over) return;
          over = true;
          for (const name of ['patience', 'ping', 'pong', 'token', 'probe', 'replay']) clearTimeout(this.timers[name]);
          s.pipe?.close();
          this.session = null;
          this.pinged = false;
          if (s.welcomed && end.code === 1006) this.learnIdle(now() - Math.max(s.heard, s.sent));
          if (!end.planned) this.update(s.heard);
          resolve({ ...end, welcomed: s.welcomed, lasted: now() - born });
        },
      };
      this.session = s;
      this.later('patience', patience, () => s.end({}));
      if (this.faults.offline || this.faults.block?.includes(kind)) return s.end({});
      const wire = this.wire([...s.topics], s.resume, () => s.heard = now(), (m) => { if (!over) this.receive(s, m, below); }, s.end);
      try {
        s.pipe = OPEN[kind](wire);
        this.log('out', kind, { type: 'connect', client: this.o.client, topics: [...s.topics], resume: s.resume });
      } catch { s.end({}); }
    });
  }

  wire(topics, resume, heard, message, down) {
    const reachable = () => this.config().then(() => true, () => false);
    return { url: this.o.url, token: () => this.token, client: this.o.client, topics, resume, heard, message, down, reachable };
  }

  /** While a fallback serves: is an (empty) session welcomed by WebSocket? */
  async probe(delay, reopen) {
    const old = this.session;
    let pipe = /** @type {any} */ (null);
    if (!old || old.kind === 'websocket') return;
    const config = await this.config().catch(() => ({}));
    const allowed = this.kinds(config).includes('websocket') && !this.faults.offline && !this.faults.block?.includes('websocket');
    const through = allowed && await within(new Promise((answer) => {
      const down = () => answer(false);
      const wire = this.wire([], undefined, () => {}, (m) => answer(m.type === 'welcome'), down);
      try { pipe = openWebSocket(wire); } catch { down(); }
    }), 5000).catch(() => false);
    pipe?.close();
    if (this.session !== old) return;
    if (through) this.favourite = 'websocket';
    if (through || reopen) old.end({ planned: true });    // or the network changed: is the old way still there?
    else this.later('probe', around(delay), () => this.probe(Math.min(delay * 2, 300_000)));
  }

  /** Two cuts after the same idle time: a proxy does that. Ping before it. */
  learnIdle(idle) {
    if (idle > 2500 && Math.abs(idle - this.idleCut) < this.idleCut / 4) this.pingEvery = Math.min(this.pingEvery, Math.max(2000, idle * 0.6));
    this.idleCut = idle;
  }

  // -- messages

  receive(s, m, below) {
    clearTimeout(this.timers.pong);
    this.pinged = false;
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
        if (below) this.say('fallback', 'info', `WebSocket does not get through (does a proxy drop "Connection: Upgrade"?). Live updates use ${NAMES[s.kind]} and try WebSocket again later.`);
        if (s.kind !== 'websocket') this.later('probe', around(15_000), () => this.probe(30_000));
        this.tell([...s.topics], m, s);
        this.catchUp(s);
        this.change(s, minus(this.topics, s.topics), minus(s.topics, this.topics));
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
        const rest = minus(m.topics, new Set(fresh)).filter((t) => m.reason !== 'no-position' || !covered(t));
        if (rest.length) this.o.emit({ t: 'resync', topics: rest, reason: m.reason, spread: m.spread_ms ?? 0 });
        break;
      }
      case 'unsubscribed':
        this.refuse(m.topics.filter((t) => this.topics.has(t) && !s.asked.flat().includes(t)).map((topic) => ({ topic, code: 'forbidden' })));
        break;
      case 'status': this.nodeLive = m.live; this.update(m.since && Date.parse(m.since)); break;
      case 'token-expiring': this.renew(); break;
      case 'token-accepted': this.expires(m.expires_in); break;
      case 'pong': s.replaying = false; break;
      case 'closing': s.end(endOf(m.code, m.reconnect_after_ms)); break;
      case 'error':
        if (m.code === 'bad-token') this.later('token', 5000, () => this.renew());
        else this.say(`error ${m.code}`, 'warn', `The node answers ${m.code}: ${m.detail}`);
    }
    if (m.at > this.at) this.at = m.at;
    this.update();
  }

  event(s, m) {
    const { topic, position, event } = m;
    if (position) {
      const place = `${topic} ${position}`;
      if (this.seen.has(place)) return;
      this.seen.add(place);
      if (this.seen.size > 2000) this.seen.delete(this.seen.values().next().value);
      this.positions[topic] = position;
    }
    const replayed = Boolean(position && s.replaying && s.resume?.positions[topic]);
    this.o.emit({ t: 'event', topic, position, replayed, event });
  }

  /** What was missed comes first: a `pong` comes behind it. Without a way up, a moment has to do. */
  catchUp(s) {
    if (!s.resume) return;
    if (s.pipe?.send) this.send({ type: 'ping' });
    else this.later('replay', 1500, () => { s.replaying = false; });
  }

  /** A welcome or `subscribed`: where the asked topics stand, which were refused. */
  tell(asked, m, s) {
    const refused = m.refused ?? [];
    this.refuse(refused);
    const skipped = [];
    for (const [topic, position] of Object.entries(m.positions ?? {})) {
      // A node that starts elsewhere than it was asked to would leave a hole: then read everything again.
      const held = s.resume?.positions[topic];
      if (held && held !== position && this.positions[topic] === held) skipped.push(topic);
      this.positions[topic] = position;
    }
    // What a resumed welcome leaves out is owed a resync: that one begins it.
    const owed = (t) => m.live && s.resume && !m.positions[t] && !t.endsWith('*');
    const topics = asked.filter((t) => this.topics.has(t) && !this.followed.has(t) && !owed(t) && !refused.some((r) => r.topic === t));
    for (const t of topics) { this.followed.add(t); this.refused.delete(t); }
    if (topics.length) this.o.emit({ t: 'followed', topics });
    if (skipped.length) this.o.emit({ t: 'resync', topics: skipped, reason: 'gap', spread: 5000 });
  }

  refuse(refused) {
    for (const { topic, code } of refused) {
      this.followed.delete(topic);
      delete this.positions[topic];
      this.refused.set(topic, code);
      this.say(`refused ${topic}`, 'warn', `“${topic}” is not followed: ${code}.`);
      this.o.emit({ t: 'refused', topic, code });
    }
  }

  send(message) {
    const s = this.session;
    if (!s?.pipe?.send) return;
    this.log('out', s.kind, message);
    s.sent = now();
    s.pipe.send(message);
  }

  resume() {
    const mine = new Set([...this.topics].flatMap((t) => [t, areaOf(t)]));
    const positions = Object.fromEntries(Object.entries(this.positions).filter(([t]) => mine.has(t)));
    return this.at && this.followed.size ? { at: this.at, positions } : undefined;
  }

  // -- liveness: browsers hide Pings from scripts, so the client asks

  beat() {
    const due = now() + this.pingEvery;
    this.later('ping', this.pingEvery, () => {
      this.ping(now() - due > 5000 ? 2500 : 5000);    // late: this machine slept
      this.beat();
    });
  }

  ping(patience) {
    const s = this.session;
    this.send({ type: 'ping' });
    if (!this.pinged || patience < 5000) this.later('pong', patience, () => s?.end({}));
    this.pinged = true;
  }

  watch(s) {
    if (s.kind !== 'sse') return;
    this.later('ping', 5000, () => (now() - s.heard > this.heartbeat * 1.5 + 5000 ? s.end({}) : this.watch(s)));
  }

  // -- tokens

  async freshToken() {
    if (this.tokenUntil > now()) return;
    this.token = await within(this.o.token(), 10_000);
    this.tokenUntil = now() + 60_000;    // until a node says how long it lasts
  }

  expires(seconds) {
    this.lifetime = seconds;
    if (seconds == null) return void (this.tokenUntil = Infinity);
    this.tokenUntil = now() + Math.max(0, seconds - 5) * 1000;
    const early = around(Math.min(60, seconds / 4));
    this.later('token', Math.max(1000, Math.min((seconds - early) * 1000, 2 ** 31 - 1)), () => this.renew());
  }

  /** Before the token ends. SSE has no way up, so it opens again. */
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
      this.say('token', 'warn', `token() failed: ${textOf(error)}. Trying again.`);
      this.later('token', around(wait), () => this.renew(Math.min(wait * 2, 30_000)));
    }
  }

  async config() {
    if (this.faults.offline) throw new Error('offline (simulated)');
    const url = `${this.o.url}/config`;
    const answer = await within(fetch(url, { cache: 'no-store', credentials: 'include' }), 4000)
      .catch((error) => { throw new Error(`${url} cannot be read (${error.message}); is the node up, is this origin allowed?`); });
    if (answer.status >= 500) throw new Error(`${url} answered ${answer.status}`);
    return answer.ok ? answer.json().catch(() => ({})) : {};
  }

  later(name, ms, what) {
    clearTimeout(this.timers[name]);
    if (!this.closed) this.timers[name] = setTimeout(what, ms);
  }

  off(reason) {
    this.status.reason = reason;
    if (!this.closed) this.say('off', 'warn', `No live updates (${reason}): the page has to be refreshed by hand.`);
    this.update();
  }

  update(since) {
    const s = this.session?.welcomed ? this.session : null;
    const was = this.status;
    if (s) was.reason = null;
    const state = this.closed || (!this.session && was.reason) ? 'off'
      : s && this.nodeLive && !this.faults.stale ? 'live' : this.everWelcomed ? 'stale' : 'connecting';
    const transport = s ? s.kind : null;
    if (state === was.state && transport === was.transport && this.told === was.node) return;
    this.told = was.node;
    this.status = { ...was, state, transport, since: state === was.state ? was.since : iso(since || now()) };
    this.o.emit({ t: 'status', status: this.status });
  }

  say(key, level, text) { this.o.emit({ t: 'say', key, level, text }); }

  log(direction, transport, m) {
    this.o.emit({ t: 'message', direction, transport, time: iso(now()), message: m.token ? { ...m, token: '…' } : m });
  }
}

// -------- Hub

/** Shares one Link among the tabs of one user. Runs in the SharedWorker, or in a page that has none. */
export class Hub {
  tabs = new Map();
  link = null;
  user = null;    // whose connection this is
  handed = null;
  asked = 0;
  born = Promise.resolve('-');    // the name of the lock that says that this worker lives

  add(port) { port.onmessage = (e) => this.hear(port, e.data); }

  hear(port, m) {
    const tab = this.tabs.get(port);
    if (tab) Object.assign(tab, { alive: now(), unheard: 0 });
    if (m.t === 'join') return this.join(port, m);
    if (!tab) return port.postMessage({ t: 'gone' });
    switch (m.t) {
      case 'topics': {
        tab.topics = new Set(m.topics);
        port.postMessage({ t: 'followed', topics: m.topics.filter((t) => this.link.followed.has(t)) });
        for (const [topic, code] of this.link.refused) if (tab.topics.has(topic)) port.postMessage({ t: 'refused', topic, code });
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

  join(port, m) {
    if (this.tabs.size && m.user !== this.user) return port.postMessage({ t: 'hello', v: 0 });
    this.user = m.user;
    const over = this.link?.status.state === 'off';
    if (!this.link || over) this.handed = m.token;
    this.tabs.set(port, { topics: new Set(m.topics), tap: m.tap, alive: now(), unheard: 0, answers: new Map() });
    for (const [other, { alive }] of this.tabs) if (now() - alive > 180_000) this.leave(other);    // went without a word
    this.link ??= new Link({
      url: m.url, transports: m.transports, client: m.client, favourite: m.favourite,
      token: () => this.token(), emit: (message) => this.emit(message),
    });
    if (over) this.link.again();    // whoever comes with a fresh token may have been let in again
    this.follow();
    this.born.then((life) => {
      port.postMessage({ t: 'hello', v: PORT_PROTOCOL, life });
      port.postMessage({ t: 'status', status: this.link?.status ?? beginning() });
    });
  }

  leave(port) {
    const tab = this.tabs.get(port);
    if (!tab) return;
    this.tabs.delete(port);
    for (const answer of tab.answers.values()) answer({});
    if (this.tabs.size) return this.follow();
    this.link?.close();
    this.link = this.user = this.handed = null;
  }

  follow() { this.link?.follow(new Set([...this.tabs.values()].flatMap((t) => [...t.topics]))); }

  emit(m) {
    for (const [port, tab] of this.tabs) {
      if (m.t === 'message' ? !tab.tap : m.t === 'event' && ![...tab.topics].some((t) => covers(t, m.topic))) continue;
      // A frozen tab joins again when it wakes.
      if (++tab.unheard > 5000 && now() - tab.alive > 180_000) this.leave(port);
      else port.postMessage(m);
    }
  }

  /** From any living tab: the newest is asked first, and one more each second. */
  async token() {
    const { handed } = this;
    this.handed = null;
    if (handed !== null) return handed;
    let done = false;
    const ask = async ([port, tab], nth) => {
      await sleep(nth * 1000);
      if (done) return;
      const id = ++this.asked;
      port.postMessage({ t: 'token', id });
      const m = await new Promise((answer) => tab.answers.set(id, answer));
      tab.answers.delete(id);
      if (!('token' in m)) throw new Error(m.error ?? 'the tab left');
      done = true;
      return m.token;
    };
    return Promise.any([...this.tabs].reverse().map(ask)).catch((e) => { throw e.errors[0]; });
  }
}

// -------- Realtime

/** Fires CustomEvents too: `status`, `event`, `resync`, `refused`, `message`. */
export class Realtime extends EventTarget {
  handlers = new Set();
  followed = new Set();
  watchers = new Set();
  refused = new Set();
  waiting = new Set();
  said = new Set();
  owed = new Map();    // resyncs that wait for their moment
  port = null;
  user = null;
  faults = null;
  closed = false;
  asking = false;
  tapped = false;
  silent = 0;
  sent = '-';

  /** @param {RealtimeOptions} [options] */
  constructor(options = {}) {
    super();
    this.id = `tab-${Math.random().toString(36).slice(2, 10)}`;
    this.options = options;
    this.status = beginning();
    this.url = String(options.url ?? '/realtime').replace(/\/+$/, '');
    try { this.url = new URL(this.url, globalThis.location?.href).href; } catch { this.say('url', 'error', `Not a URL: ${options.url}`); }
    const kinds = options.transports ?? KINDS;
    this.transports = kinds.filter((k) => KINDS.includes(k));
    if (this.transports.length < kinds.length) this.say('transports', 'error', `Transports are ${KINDS}; not all of [${kinds}].`);
    this.listen();
    this.start();
  }

  // Explained in realtime.d.ts.

  static topic(area, key) {
    return `${area}:${String(key).replace(/[\0- \x7f%*,{}]/g, (c) => `%${(c.charCodeAt(0) + 256).toString(16).slice(1).toUpperCase()}`)}`;
  }

  on(topic, handler, options) { return this.handle('event', topic, handler, options); }

  onResync(topic, handler, options) { return this.handle('resync', topic, handler, options); }

  off(topic, handler) {
    for (const h of this.handlers) if (h.topic === topic && h.fn === handler) this.handlers.delete(h);
    this.topics();
  }

  onStatus(handler, options) {
    this.call(handler, this.status);
    this.watchers.add(handler);
    return this.ending(() => this.watchers.delete(handler), options?.signal);
  }

  onMessage(handler, options) {
    this.tapped = true;
    this.post({ t: 'tap' });
    const listener = (e) => this.call(handler, e.detail);
    this.addEventListener('message', listener, options);
    return () => this.removeEventListener('message', listener);
  }

  ready() { return new Promise((resolve) => { this.waiting.add(resolve); this.settle(); }); }

  settle() {
    const { state } = this.status;
    if (state !== 'off' && (state !== 'live' || this.wanted().some((t) => !this.followed.has(t) && !this.refused.has(t)))) return;
    for (const go of this.waiting) go(this.status);
    this.waiting.clear();
  }

  simulate(faults) { this.faults = { ...faults, drop: false }; this.post({ t: 'simulate', faults }); }

  close() {
    if (this.closed) return;
    this.closed = true;
    this.detach();
    this.gone.abort();
    this.change({ ...this.status, state: 'off', since: iso(now()), transport: null, reason: 'closed' });
    this.handlers.clear();
    this.watchers.clear();
  }

  // -- handlers

  handle(kind, topic, fn, options = {}) {
    const handler = { kind, topic: String(topic), fn, once: Boolean(options.once), told: false };
    if (this.closed) return () => {};
    this.handlers.add(handler);
    this.topics();
    if (kind === 'resync' && this.followed.has(handler.topic)) queueMicrotask(() => this.subscribed(handler));
    return this.ending(() => { this.handlers.delete(handler); this.topics(); }, options.signal);
  }

  ending(stop, signal) {
    if (signal?.aborted) stop();
    signal?.addEventListener('abort', stop, { once: true });
    return () => { signal?.removeEventListener('abort', stop); stop(); };
  }

  /** What a handler throws is reported, and stops nobody. */
  call(fn, ...args) {
    try {
      const result = typeof fn === 'function' ? fn(...args) : fn.handleEvent(...args);
      if (result?.catch) result.catch(report);
    } catch (error) { report(error); }
  }

  subscribed(h) {
    if (h.told || !this.handlers.has(h)) return;
    h.told = true;
    this.run(h, { topic: h.topic, reason: 'subscribed' });
  }

  run(h, ...args) {
    if (!this.handlers.has(h)) return;
    if (h.once) { this.handlers.delete(h); this.topics(); }
    this.call(h.fn, ...args);
  }

  wanted() { return [...new Set([...this.handlers].map((h) => h.topic))]; }

  /** Tells the Hub what this tab follows, once per turn. */
  topics() {
    if (this.asking) return;
    this.asking = true;
    setTimeout(() => {
      this.asking = false;
      const topics = this.wanted();
      for (const t of minus(this.followed, new Set(topics))) this.followed.delete(t);
      if (this.sent !== `${topics}`) this.post({ t: 'topics', topics });
      this.sent = `${topics}`;
    }, 0);
  }

  // -- the connection

  /** Joins the worker of this user, or a Hub in this page. */
  async start() {
    const turn = this.turn = {};
    const left = () => this.closed || this.turn !== turn;
    let token;
    for (let wait = 1000; token === undefined; wait = Math.min(wait * 2, 30_000)) {
      try { token = await this.getToken(); } catch (error) {
        this.say('token', 'warn', `token() failed: ${textOf(error)}. Live updates begin when it works.`);
        await sleep(random(wait));
      }
      if (left()) return;
    }
    this.user = this.options.user ?? subjectOf(token);
    const shared = this.options.shared !== false && this.user !== null && typeof SharedWorker === 'function';
    if (!shared || !await this.joinWorker(token, turn)) {
      if (left()) return;
      const [here, there] = pipe();
      new Hub().add(there);
      here.postMessage(this.joining(token));
      this.attach(here);
    }
  }

  async joinWorker(token, turn) {
    try {
      const name = `carillon-${VERSION} ${this.url} ${this.transports} ${this.user}`;
      const worker = new SharedWorker(new URL('./realtime.js', import.meta.url), { type: 'module', name });
      const { port } = worker;
      const hello = new Promise((resolve) => {
        port.onmessage = (e) => { if (e.data.t === 'hello') resolve(e.data.v === PORT_PROTOCOL && e.data.life); };
        worker.onerror = () => resolve('');
        sleep(8000).then(resolve);
      });
      port.postMessage(this.joining(token));
      const life = await hello;
      if (life && this.turn === turn) {
        // The worker holds this lock while it lives.
        globalThis.navigator?.locks?.request(life, () => { if (this.port === port) this.restart('stale'); }).catch(() => {});
        return this.attach(port);
      }
      port.postMessage({ t: 'bye' });
      port.close();
    } catch { /* no worker here: cross-origin, or forbidden */ }
    return false;
  }

  joining(token) {
    return { t: 'join', user: this.user, token, topics: this.wanted(), url: this.url, transports: this.transports, client: this.id, favourite: remembered(), tap: this.tapped };
  }

  attach(port) {
    this.port = port;
    port.onmessage = (e) => { this.silent = 0; if (this.port === port) this.hear(e.data); };
    if (this.tapped) this.post({ t: 'tap' });
    if (this.faults) this.simulate(this.faults);
    this.sent = '-';
    this.topics();
    return true;
  }

  restart(state) {
    this.detach();
    this.change({ ...beginning(), state });
    this.start();
  }

  detach() {
    this.turn = undefined;
    this.post({ t: 'bye' });
    this.port = null;
    for (const timer of this.owed.values()) clearTimeout(timer);
    this.owed.clear();
    this.followed.clear();
    this.refused.clear();
    for (const h of this.handlers) h.told = false;
  }

  post(m) { this.port?.postMessage(m); }

  async getToken() {
    const { token } = this.options;
    return (typeof token === 'function' ? await within(Promise.resolve(token()), 10_000) : token) ?? null;
  }

  hear(m) {
    switch (m.t) {
      case 'event': {
        if (m.event?.origin === this.id) return;
        const { event, topic, position, replayed } = m;
        for (const h of [...this.handlers]) if (h.kind === 'event' && covers(h.topic, topic)) this.run(h, event, { topic, position, replayed });
        return this.fire('event', m);
      }
      case 'followed':
        for (const t of m.topics) this.followed.add(t);
        for (const h of [...this.handlers]) if (h.kind === 'resync' && m.topics.includes(h.topic)) this.subscribed(h);
        return this.settle();
      case 'resync': return this.resync(m);
      case 'refused':
        this.followed.delete(m.topic);
        this.refused.add(m.topic);
        this.fire('refused', m);
        return this.settle();
      case 'status': remember(m.status); return this.change(m.status);
      case 'message': return this.fire('message', m);
      case 'say': return this.say(m.key, m.level, m.text);
      case 'token': return void this.handToken(m.id);
      case 'gone': this.restart('stale');
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

  /** Another user's token is never handed over: this tab moves to that user's connection. */
  async handToken(id) {
    const port = this.port;
    try {
      const token = await this.getToken();
      const user = this.options.user ?? subjectOf(token);
      if (this.port !== port) return;
      if (user !== this.user) this.restart('connecting');
      else port?.postMessage({ t: 'token', id, token });
    } catch (error) { port?.postMessage({ t: 'token', id, error: textOf(error) }); }
  }

  change(status) {
    const same = ['state', 'transport', 'node', 'reason'].every((k) => this.status[k] === status[k]);
    this.status = status;
    if (same) return;
    for (const w of [...this.watchers]) this.call(w, status);
    this.fire('status', status);
    this.settle();
  }

  listen() {
    const page = globalThis.window;
    const gone = this.gone = new AbortController();
    const alive = setInterval(() => {    // a worker that answers nothing for a minute is dead
      if (++this.silent > 3 && this.port) this.restart('stale');
      this.post({ t: 'alive' });
    }, 20_000);
    gone.signal.addEventListener('abort', () => clearInterval(alive));
    if (!page?.addEventListener) return;
    const on = (target, type, fn) => target.addEventListener(type, fn, { signal: gone.signal });
    const poke = (e) => { if (!page.document.hidden) this.post({ t: 'poke', why: e.type }); };
    on(page, 'online', poke);
    on(page, 'offline', poke);
    on(page.document, 'visibilitychange', poke);
    on(page, 'pagehide', () => this.detach());
    on(page, 'pageshow', (e) => { if (e.persisted && !this.closed) this.restart('stale'); });
  }

  fire(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  say(key, level, text) {
    if (this.said.has(key)) return;
    this.said.add(key);
    /** @type {any} */ (console)[level](`[carillon] ${text}`);
  }
}

const report = (error) => { if (typeof reportError === 'function') reportError(error); else console.error(error); };

function pipe() {
  const a = {}, b = {};
  a.postMessage = (data) => queueMicrotask(() => b.onmessage?.({ data }));
  b.postMessage = (data) => queueMicrotask(() => a.onmessage?.({ data }));
  return [a, b];
}

/** What worked last in this tab, for its next page. */
function remembered() {
  try {
    const [kind, until] = (sessionStorage.getItem('carillon') ?? '').split(' ');
    return Number(until) > now() ? kind : undefined;
  } catch { return undefined; }
}

function remember({ state, transport }) {
  if (state === 'live') try { sessionStorage.setItem('carillon', `${transport} ${now() + 600_000}`); } catch { /* no storage here */ }
}

// This file is its own SharedWorker script.
if ('SharedWorkerGlobalScope' in globalThis) {
  const hub = new Hub();
  const life = `carillon-worker-${Math.random()}`;
  if (navigator.locks) hub.born = new Promise((held) => { navigator.locks.request(life, () => { held(life); return new Promise(() => {}); }); });
  /** @type {any} */ (globalThis).onconnect = (e) => hub.add(e.ports[0]);
}
