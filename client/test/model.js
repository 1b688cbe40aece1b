// A model of the link: 100,000 random sequences of what servers, pages and the network may do, on a clock of its own.
// At no time: two sessions, a session after `close()`, more than 30 requests in ten seconds. At the end, when all is
// quiet and well: live, and every topic followed or refused to whoever wants it; or off, and nothing is asked any more.
//   node test/model.js 7 1000     1,000 sequences from seed 7 on; a failure names its seed
// A program of its own, run by model.test.js: the hooks of the test runner make promises ten times slower.
import { Link, TRANSITIONS } from '../src/link.js';
import { SignedOut } from '../src/protocol.js';

const [FIRST = 1, RUNS = 1000] = process.argv.slice(2).map(Number);
const JWT = btoa(JSON.stringify({ sub: 'anna', iat: 0, exp: 600 }));
const TOPICS = ['comments:1', 'comments:2', 'projects', 'content:*', 'secret:1'];

/** Numbers that a seed decides (mulberry32). */
const random = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};
/** Lets everything happen that needs no time. */
const settle = async () => { for (let n = 0; n < 16; n++) await undefined; };

class World {
  time = 1000; timers = new Map(); ids = 0; spent = []; open_ = new Set(); closed = false; trouble = null; faulty = true; told = new Map(); statuses = [];

  constructor(seed) {
    this.rnd = random(seed);
    this.pick = (list) => list[Math.floor(this.rnd() * list.length)];
    const kind = (name) => (wire) => this.connect(name, wire);
    this.env = {
      now: () => this.time, wall: () => 1e12 + this.time, stamp: () => this.time, since: (then) => this.time - then,
      set: (what, ms) => { this.timers.set(++this.ids, { at: this.time + Math.max(0, ms), what }); return this.ids; },
      clear: (id) => this.timers.delete(id),
      config: () => this.asked('config', () => this.config()),
      open: { websocket: kind('websocket'), sse: kind('sse'), poll: kind('poll') },
    };
  }

  /** Something is asked of a server or a page. */
  asked(what, answer) {
    if (this.closed) this.trouble ??= `${what} after close()`;
    this.spent = this.spent.filter((at) => at > this.time - 10_000);
    this.spent.push(this.time);
    if (this.spent.length > 30) this.trouble ??= `more than 30 requests in ten seconds (${what})`;
    return answer();
  }

  config() {
    if (!this.faulty || this.rnd() < 0.8) return Promise.resolve(this.faulty && this.rnd() < 0.1 ? { websocket: false } : {});
    return this.pick([() => Promise.reject(new Error('away')), () => Promise.reject(503), () => Promise.resolve({}), () => new Promise(() => {})])();
  }

  token() {
    return this.asked('token', () => {
      const good = () => Promise.resolve(`x.${JWT}.${++this.ids}`);
      if (!this.faulty || this.rnd() < 0.75) return good();
      return this.pick([() => Promise.resolve('<html>'), () => Promise.resolve(''), () => Promise.reject(new Error('CMS away')), () => Promise.resolve('opaque'), () => Promise.reject(new SignedOut())])();
    });
  }

  connect(kind, wire) {
    if (kind !== 'websocket') wire.spend().catch(() => {});
    const c = { kind, wire, up: true, following: new Set(), questions: [{ type: 'connect', topics: wire.topics, resume: wire.resume }] };
    this.asked(kind, () => {});
    if (wire.client !== 'probe') this.open_.add(c);
    if ([...this.open_].filter((o) => o.up).length > 2) this.trouble ??= 'more than a session and a probe';
    return {
      send: kind === 'websocket' ? (m) => { if (this.closed) this.trouble ??= `${m.type} after close()`; if (c.up) c.questions.push(m); } : null,
      close: () => { c.up = false; this.open_.delete(c); },
    };
  }

  /** A node answers its oldest question, rightly or not. */
  answer(c) {
    const m = c.questions.shift();
    if (!m || !c.up) return;
    const say = (message) => c.up && c.wire.message({ at: this.time, ...message });
    if (this.faulty && this.rnd() < 0.15) return this.misbehave(c);
    const refused = (m.topics ?? []).filter((t) => t.startsWith('secret') || (this.faulty && this.rnd() < 0.1));
    const kept = (m.topics ?? []).filter((t) => !refused.includes(t));
    for (const t of kept) c.following.add(t);
    const held = m.resume?.positions ?? {};
    const owed = m.resume && c.live !== false ? kept.filter((t) => !t.endsWith('*') && (!held[t] || this.rnd() < 0.1)) : [];
    const positions = Object.fromEntries(kept.filter((t) => !t.endsWith('*') && !owed.includes(t)).map((t) => [t, held[t] ?? `L.1-${++this.ids}`]));
    const codes = refused.map((topic) => ({ topic, code: this.rnd() < 0.5 ? 'forbidden' : 'too-many' }));
    if (m.type === 'connect') {
      c.live = !(this.faulty && this.rnd() < 0.2);
      say({ type: 'welcome', node: 'n', user: 'anna', heartbeat: 25, expires_in: this.faulty ? this.pick([1, 20, 600, undefined]) : 600, positions, refused: codes, live: c.live });
    } else if (m.type === 'subscribe') say({ type: 'subscribed', positions, refused: codes });
    else if (m.type === 'unsubscribe') say({ type: 'unsubscribed', topics: m.topics });
    else if (m.type === 'token') say(this.faulty && this.rnd() < 0.3 ? { type: 'error', code: 'bad-token', detail: 'no' } : { type: 'token-accepted', expires_in: 600 });
    else if (m.type === 'ping') say({ type: 'pong' });
    if (owed.length) say({ type: 'resync', topics: owed, reason: 'no-position', spread_ms: 0, positions: Object.fromEntries(owed.map((t) => [t, `L.1-${++this.ids}`])) });
  }

  misbehave(c) {
    const { wire } = c;
    this.pick([
      () => wire.down({ code: 1006 }), () => wire.down({}), () => wire.down({ code: 4401, token: true }), () => wire.down({ code: 4403, off: 'forbidden' }),
      () => { wire.message({ type: 'closing', code: 1012, reconnect_after_ms: 0 }); wire.down({ code: 1012 }); }, () => wire.down({ code: 1013, after: 500 }),
      () => wire.message({ type: 'token-expiring', expires_in: 1 }), () => wire.message({ type: 'unsubscribed', topics: [...c.following].slice(0, 1) }),
      () => wire.message({ type: 'status', live: false }), () => wire.message({ type: 'welcome', positions: {}, refused: [] }), () => wire.message({ type: 'subscribed', positions: {}, refused: [] }),
      () => wire.message({ type: 'event', topic: 'comments:1', position: `L.1-${++this.ids}`, at: this.time, event: {} }), () => {},
    ])();
  }

  /** Time passes, and timers come due in their order. */
  async pass(ms) {
    for (const end = this.time + ms; ;) {
      await settle();
      if (!this.faulty) for (const c of [...this.open_]) { while (c.questions.length && c.up) this.answer(c); await settle(); }
      let next = null;
      for (const [id, t] of this.timers) if (t.at <= end && (!next || t.at < next[1].at)) next = [id, t];
      if (!next) { this.time = end; return; }
      this.timers.delete(next[0]);
      this.time = Math.max(this.time, next[1].at);
      next[1].what();
    }
  }
}

/** One sequence; gives what went wrong, or null. */
async function sequence(seed) {
  const world = new World(seed);
  const { rnd, pick } = world;
  const link = new Link({
    url: 'http://n/realtime', transports: ['websocket', 'sse', 'poll'], client: 'tab', env: world.env,
    token: async (topics, spend) => { await spend(); return world.token(); },
    emit: (m) => {
      if (m.t === 'followed') for (const t of m.topics) world.told.set(t, 'followed');
      if (m.t === 'refused') world.told.set(m.topic, 'refused');
      if (m.t === 'status') { if (world.closed && m.status.reason !== 'closed') world.trouble ??= `told “${m.status.state}” after close()`; if (m.status.state !== 'live' && !m.status.reason) world.trouble ??= 'not live, and no reason'; }
    },
  });
  let wanted = new Map();
  const follow = () => {
    const before = wanted;
    wanted = new Map(TOPICS.filter(() => rnd() < 0.5).map((t) => [t, rnd() < 0.2 ? { at: 5, positions: { [t]: 'L.1-0', [t.split(':')[0]]: 'L.1-0' } } : undefined]));
    for (const t of [...world.told.keys()]) if (!wanted.has(t)) world.told.delete(t);
    link.follow(wanted, [...wanted.keys()].filter((t) => !before.has(t)));
  };
  follow();
  link.start();
  const doings = [
    follow, () => link.poke(pick(['online', 'offline', 'visibilitychange'])), () => link.simulate(pick([{ offline: true }, { block: ['websocket'] }, { drop: true }, { stale: true }, {}, {}])),
    () => link.again(), () => { for (const c of world.open_) if (rnd() < 0.5) world.misbehave(c); },
  ];
  for (let n = 2 + Math.floor(rnd() * 8); n > 0 && !world.trouble; n--) {
    if (rnd() < 0.35) pick(doings)();
    for (const c of [...world.open_]) if (rnd() < 0.7) world.answer(c);
    await settle();
    await world.pass(pick([0, 10, 300, 1500, 4000, 12_000]));
    check(world, link);
  }
  if (world.trouble) return world.trouble;
  if (rnd() < 0.25) {
    world.closed = true;
    link.close();
    for (const c of [...world.open_]) world.answer(c);
    await world.pass(60_000);
    if (world.open_.size) return 'a session after close()';
    return world.trouble ?? (link.status.state === 'off' ? null : `closed, and ${link.status.state}`);
  }
  // All is well from now on.
  world.faulty = false;
  for (const c of [...world.open_]) { c.live = true; c.wire.message({ type: 'status', live: true }); }
  link.simulate({});
  await quiet(world, link, wanted);
  check(world, link);
  if (world.trouble) return world.trouble;
  if (link.status.state === 'off') {
    world.closed = true;    // nothing may be asked any more
    await world.pass(60_000);
    world.closed = false;
    if (world.trouble) return `off, and ${world.trouble}`;
    if (!link.again()) return 'off, and not on again';
    await quiet(world, link, wanted);
  }
  if (link.status.state !== 'live') return `all is well, and the link is ${link.status.state}/${link.status.reason} (${link.state})`;
  for (const t of wanted.keys()) if (!world.told.has(t)) return `live, and ${t} is neither followed nor refused (${JSON.stringify(link.subscriptions.byName.get(t))})`;
  if (world.told.get('projects') === 'refused' && wanted.has('projects') && link.subscriptions.is('projects', 'followed')) return 'followed, and told refused';
  return world.trouble;
}

/** All is well for up to 150 s, or until it shows. */
async function quiet(world, link, wanted) {
  for (let n = 0; n < 75 && !world.trouble && link.status.state !== 'off'; n++) {
    await world.pass(2000);
    if (link.status.state === 'live' && [...wanted.keys()].every((t) => world.told.has(t))) return;
  }
}

function check(world, link) {
  const sessions = [...world.open_].filter((c) => c.up && c.wire !== link.probing).length;
  if (sessions > 1 && !link.session?.timers.probe && link.session?.kind === 'websocket') world.trouble ??= `${sessions} sessions`;
  if (!(link.state in TRANSITIONS)) world.trouble ??= `unknown state ${link.state}`;
  if ((link.state === 'open') !== Boolean(link.session?.welcomed)) world.trouble ??= `state ${link.state}, and its session is ${link.session?.welcomed ? '' : 'not '}welcomed`;
  if (!['opening', 'open'].includes(link.state) && link.session) world.trouble ??= `a session in state ${link.state}`;
}

for (let seed = FIRST; seed < FIRST + RUNS; seed++) {
  Math.random = random(seed ^ 0x5bd1e995);
  const wrong = await sequence(seed).catch((error) => error.stack);
  if (wrong) { console.log(`seed ${seed}: ${wrong}`); process.exit(1); }
}
