//! Keeps one session with a node alive. What a link does next is said by a table of states; one function makes the
//! transitions, and each run from one wait to the next has an AbortSignal that is looked at after every await.
//! Knows no tabs.

import { Timers, beginning, iso, isSame, random, textOf, within } from './protocol.js';
import { Session } from './session.js';
import { Budget, Tokens } from './tokens.js';
import { Topics } from './topics.js';
import { WORLD } from './transports.js';

/** state → event → next state. What is not in here does not happen. */
export const TRANSITIONS = {
  idle: { start: 'preparing', close: 'closed' },
  preparing: { ready: 'opening', fail: 'waiting', end: 'off', close: 'closed' },    // a token, the node's config
  opening: { welcome: 'open', descend: 'opening', move: 'preparing', fail: 'waiting', end: 'off', close: 'closed' },
  open: { fail: 'waiting', move: 'preparing', end: 'off', close: 'closed' },
  waiting: { due: 'preparing', close: 'closed' },
  off: { start: 'preparing', close: 'closed' },
  closed: {},
};

/** ms for which a planned change of connection may go unseen. */
const UNSEEN = 5000;
const FIRST_TRY = { websocket: 2000, sse: 1600, poll: 4000 };

export class Link extends Timers {
  state = 'idle';
  subscriptions = new Topics();
  session = /** @type {Session} */ (null);
  run = new AbortController();
  status = beginning();
  faults = /** @type {any} */ ({});
  why = 'starting';    // why it is not live
  attempt = 0;
  nodeLive = false;
  late = /** @type {any} */ ([]);    // publishers whose changes may be late
  everWelcomed = false;
  moving = false;    // between two connections, as planned
  config = /** @type {any} */ (null);
  checkedAt = 0;
  pingEvery = 20_000;
  idleCut = 0;
  short = 0;    // connections in a row that did not last
  distrust = 0;    // ms for which WebSocket is not tried again
  older = { until: -1 };    // nodes that know no POST

  /** @param {any} options  url, transports, client, favourite, was, config, token(topics), emit(message); env for tests */
  constructor(options) {
    super(options.env ?? WORLD);
    this.o = options;
    this.budget = new Budget(this.env);
    this.tokens = new Tokens(this);
    this.favourite = options.favourite;
    this.everWelcomed = Boolean(options.was);
    this.config = options.config ?? null;
  }

  start() { this.step('start'); }

  /** The one place where the state changes. */
  step(event, end = {}) {
    const next = TRANSITIONS[this.state][event];
    if (!next) return false;
    const { session } = this;
    this.state = next;
    if (!/^(ready|welcome|descend)$/.test(event)) this.run.abort(/** @type {any} */ ('over'));
    if (next !== 'open') { this.session = null; session?.end(end); }
    if (next === 'preparing') this.prepare((this.run = new AbortController()).signal);
    else if (next === 'opening') this.climb();
    else if (next === 'waiting') this.wait(end);
    else if (next === 'off' || next === 'closed') this.stop(end);
    this.update();
    return true;
  }

  // -- the states

  async prepare(signal) {
    this.checkedAt = this.env.now();
    if (!await this.tokens.fresh(signal)) return void (signal.aborted || this.step('fail', { why: 'token' }));
    try {
      this.config ??= await this.readConfig(signal);
    } catch (error) {
      if (signal.aborted) return;
      this.away(textOf(error));
      return void this.step('fail', { why: 'unreachable' });
    }
    if (signal.aborted) return;
    this.kinds = this.kindsOf(this.config);
    this.rung = Math.max(0, this.kinds.indexOf(this.favourite));
    this.step(this.kinds.length ? 'ready' : 'end', { off: 'disabled' });
  }

  kindsOf(config) { return this.o.transports.filter((k) => config[k] !== false && this.env.open[k]); }

  climb() {
    const kind = this.kinds[this.rung];
    const session = this.session = new Session(this, kind, kind !== this.kinds[0]);
    session.open(FIRST_TRY[kind] * Math.min(5, 1.6 ** this.attempt), this.run.signal);
  }

  /** A session ended by itself. @param {Session} session  @param {import('./protocol.js').End} end */
  ended(session, end) {
    if (this.session !== session) return;
    const { welcomed } = session;
    this.moving = Boolean(end.planned && (welcomed || this.moving));
    if (this.moving) this.later('unseen', UNSEEN, () => this.seen());
    if (end.token) this.tokens.forget(!welcomed);
    // Never less than one topic of the longest name needs.
    if (end.less) this.subscriptions.room = Math.max(1000, this.subscriptions.room / 2);
    if (welcomed && !end.planned) this.lived(session, end, this.env.since(session.born));
    const told = end.token || end.after >= 0;
    if (!end.planned && !end.off && !welcomed && !told) {
      if (++this.rung < this.kinds.length) return this.step('descend');
      this.favourite = undefined;    // nothing below works either: from the top next time
      this.away(`no answer from ${this.o.url}`);
    }
    this.step(end.planned ? 'move' : end.off ? 'end' : 'fail', {
      ...end, why: end.token ? 'token' : told ? 'busy' : welcomed ? 'lost' : 'unreachable', since: welcomed ? session.heard[1] : this.lostAt,
    });
  }

  away(why) { if (this.attempt === 2) this.say('away', 'warn', `No live updates now: ${why}`); }

  /** What a connection that was cut off teaches. */
  lived(session, end, lasted) {
    if (end.code === 1006) this.learnIdle(Math.min(this.env.since(session.heard), this.env.since(session.sent)));
    if (lasted > 1000) this.attempt = 0;
    if (end.after >= 0 || end.token) return;
    this.short = lasted < 20_000 ? this.short + 1 : 0;
    if (lasted > 60_000 && session.kind === 'websocket') this.distrust = 0;
    if (this.short < 3 && !(this.distrust && lasted < 20_000 && session.kind === 'websocket')) return;
    this.favourite = this.kinds[this.kinds.indexOf(session.kind) + 1];
    if (session.kind === 'websocket') this.distrust = Math.min(Math.max(this.distrust * 2, 300_000), 3_600_000);
  }

  wait(end) {
    const ceiling = Math.min(30_000, 1000 * 2 ** this.attempt++);
    this.why = end.why;
    this.config = null;    // read again: what is switched off may have changed
    const told = end.after >= 0;
    // Full jitter from the first try on: a lost node's pages come back at different moments.
    const ms = told ? end.after + random(this.attempt > 1 ? ceiling : Math.max(250, Math.min(1000, end.after))) : random(ceiling);
    this.lostAt = end.since ?? this.lostAt;
    const due = () => this.step('due');
    this.later('wait', ms, due);
    this.hurry = () => { if (!told && this.state === 'waiting') this.later('wait', random(Math.min(500, ms)), due); };
  }

  stop(end) {
    this.moving = false;
    this.why = end.off ?? 'closed';
    this.cancelAll();
    this.over = this.state === 'closed';
    if (this.why !== 'disabled') this.tokens.forget();
    if (this.state === 'off') this.say(`off ${this.why}`, 'warn', `No live updates (${this.why}): refresh by hand.`);
  }

  close() { this.step('close'); }

  /** After `off`: somebody may have been let in again. */
  again() {
    this.attempt = 0;
    this.why = 'starting';
    return this.step('start');
  }

  // -- what tabs want

  follow(wanted, again = []) {
    const { added, gone } = this.subscriptions.follow(wanted);
    this.session?.change(added, gone);
    if (again.some((t) => this.subscriptions.is(t, 'refused'))) ['forbidden', 'too-many'].forEach((code) => this.session?.askAgain(code));
  }

  poke(why) {
    if (this.state === 'off' && this.why === 'disabled' && this.env.now() - this.checkedAt > 60_000) { this.config = null; this.again(); }
    this.hurry?.();
    this.session?.poke(why);
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

  isBlocked(kind) { return this.faults.offline || this.faults.block?.includes(kind); }

  // -- what a session tells

  welcomed(session, m) {
    const { heartbeat } = session;
    this.everWelcomed = true;
    this.moving = false;
    this.favourite = session.kind;
    this.nodeLive = m.live !== false;
    this.late = m.late;
    this.lostAt = undefined;
    this.pingEvery = Math.min(this.pingEvery, heartbeat * 0.8);
    this.node = m.node;
    this.user = m.user;
    this.tokens.expires(m.expires_in);
    session.probeLater(Math.max(15_000, this.distrust));
    this.step('welcome');
  }

  sight({ live, since, late }) {
    this.nodeLive = live;
    this.late = late ?? this.late;
    this.lostAt = live ? undefined : since && Date.parse(since);
    this.update();
  }

  /** Two cuts after the same idle time: a proxy does that. Ping before it. */
  learnIdle(idle) {
    if (idle > 2500 && Math.abs(idle - this.idleCut) < this.idleCut / 4) this.pingEvery = Math.min(this.pingEvery, Math.max(2000, idle * 0.6));
    this.idleCut = idle;
  }

  /** While a fallback serves: is an (empty) session welcomed by WebSocket? */
  async probe(session, next, reopen = false) {
    if (this.probing) return;
    this.probing = true;
    await this.tryWebSocket(session, next, reopen);
    this.probing = false;
  }

  async tryWebSocket(session, next, reopen) {
    const current = () => this.session === session && !session.over;
    const { signal } = this.run;
    const config = await this.readConfig(signal).catch(() => ({}));
    if (!current()) return;
    let through = false;
    if (this.kindsOf(config).includes('websocket') && !this.isBlocked('websocket') && !(reopen && this.distrust)) {
      await this.budget.spend(signal).catch(() => {});
      if (!current()) return;
      let pipe = /** @type {any} */ (null);
      through = await within(new Promise((answer) => {
        const down = () => answer(false);
        const wire = this.wire({ topics: [], heard: () => {}, message: (m) => answer(m.type === 'welcome'), down });
        try { pipe = this.env.open.websocket(wire); } catch { down(); }
      }), 5000, this.env).catch(() => false);
      pipe?.close();
      if (!current()) return;
    }
    if (through) this.favourite = 'websocket';
    if (through || reopen) session.end({ planned: true });    // or the network changed: is the old way still there?
    else session.probeLater(Math.min(next, 300_000));
  }

  wire(more) {
    const { o, older } = this;
    return {
      url: o.url, client: o.client, older, foreign: !o.url.startsWith(`${globalThis.origin}/`),
      token: () => this.tokens.token, spend: (signal) => this.budget.spend(signal),
      reachable: () => this.readConfig(this.run.signal).then(() => true, () => false), ...more,
    };
  }

  async readConfig(signal) {
    if (this.faults.offline) throw new Error('offline');
    const url = `${this.o.url}/config`;
    await this.budget.spend(signal);
    return within(this.env.config(url, signal), 4000, this.env).catch((error) => { throw new Error(`${url} cannot be read (${textOf(error)}); is it up, is this origin allowed?`); });
  }

  // -- what is told

  seen() { if (this.moving) { this.moving = false; this.why = 'lost'; this.update(); } }

  update() {
    const session = this.state === 'open' ? this.session : null;
    if (this.moving && !session) return;
    const over = this.state === 'off' || this.state === 'closed';
    const live = session && this.nodeLive && !this.faults.stale;
    const reason = live ? null : session ? (this.nodeLive ? 'simulated' : 'redis') : this.why;
    const state = live ? 'live' : over ? 'off' : this.everWelcomed || reason === 'token' ? 'stale' : 'connecting';
    const was = this.status;
    const since = state === was.state ? was.since : iso((!live && this.lostAt) || this.env.wall());
    const status = /** @type {any} */ (Object.freeze)({ state, since, transport: session?.kind ?? null, node: this.node ?? null, user: this.user ?? null, reason, late: session && this.late || [] });
    if (isSame(status, was)) return;
    this.status = status;
    this.emit({ t: 'status', status });
  }

  emit(message) { if (this.state !== 'closed' || message.t === 'status') this.o.emit(message); }

  say(key, level, text) { this.emit({ t: 'say', key, level, text }); }

  log(direction, transport, m) {
    if (!this.o.isTapped?.()) return;
    this.emit({ t: 'message', direction, transport, time: iso(this.env.wall()), message: m.token ? { ...m, token: '…' } : m });
  }
}
