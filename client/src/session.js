//! One connection to a node: what it was asked, what it says, and whether it is still alive. Browsers hide a WebSocket's
//! Pings from scripts, so the client asks by itself.

import { NAMES, Timers, areaOf, around, endOf, random } from './protocol.js';

/** ms that a question may stay unanswered. */
const ANSWER = 15_000;
/** ms between two openings of a stream that has no way up, while topics come and go. */
const REOPEN = 1000;
/** ms between two rounds of asking again for what was refused. */
const AGAIN = 5000;

export class Session extends Timers {
  welcomed = false;
  replaying = true;
  pinged = false;
  pipe = /** @type {any} */ (null);
  asked = /** @type {{ topics: any[], drop?: boolean, resume?: any }[]} */ ([]);

  /** @param {import('./link.js').Link} link  @param {string} kind  @param {boolean} below  not the first choice */
  constructor(link, kind, below) {
    super(link.env);
    this.link = link;
    this.kind = kind;
    this.below = below;
    this.subscriptions = link.subscriptions;
    this.born = this.heard = this.sent = this.env.stamp();
    const all = [...this.subscriptions.byName.keys()];
    const [first, rest] = this.subscriptions.split(all);
    this.rest = rest;
    this.resume = this.subscriptions.resume(first);
    this.first = this.subscriptions.asked(first);
  }

  async open(patience, signal) {
    const { link, kind } = this;
    this.later('patience', patience, () => this.end({}));
    if (link.isBlocked(kind)) return this.end({});
    try {
      if (kind === 'websocket') await link.budget.spend(signal);
      if (signal.aborted || this.over) return;
      this.pipe = this.env.open[kind](this.wire());
      link.log('out', kind, { type: 'connect', client: link.o.client, topics: this.first.map(([t]) => t), resume: this.resume });
    } catch { this.end({}); }
    if (this.over) this.pipe?.close();    // it ended while it opened
  }

  wire() {
    return this.link.wire({
      topics: this.first.map(([t]) => t), resume: this.resume, heard: () => { this.heard = this.env.stamp(); },
      message: (m) => { if (!this.over) this.receive(m); }, down: (end) => this.end(end),
    });
  }

  end(end) {
    if (this.over) return;
    this.over = true;
    this.cancelAll();
    this.pipe?.close();
    this.subscriptions.lost();
    this.link.ended(this, end);
  }

  send(message) {
    this.link.log('out', this.kind, message);
    this.sent = this.env.stamp();
    this.pipe.send(message);
  }

  // -- topics

  /** What has been added is asked for; SSE and long-poll have no way up: that needs a new request. */
  change(added, gone) {
    if (!this.welcomed) return;    // the answer to `connect` is compared with what is wanted then
    if (!this.pipe.send) {
      const room = gone.length && this.subscriptions.named('refused').some((t) => this.subscriptions.byName.get(t).code === 'too-many');
      if (added.length || room) this.later('reopen', Math.max(30, REOPEN - this.env.since(this.born)), () => this.end({ planned: true }));
      return;
    }
    for (let batch, rest = gone; rest.length;) {
      [batch, rest] = this.subscriptions.split(rest);
      this.question({ type: 'unsubscribe', topics: batch }, { topics: batch, drop: true });
    }
    if (gone.length) this.askAgain('too-many', 0);
    this.ask(added);
  }

  ask(topics) {
    for (let batch, rest = topics; rest.length;) {
      [batch, rest] = this.subscriptions.split(rest);
      const resume = this.subscriptions.resume(batch);
      this.question({ type: 'subscribe', topics: batch, ...(resume && { resume }) }, { topics: this.subscriptions.asked(batch), resume });
    }
  }

  question(message, entry) {
    this.asked.push(entry);
    this.expect();
    this.send(message);
  }

  /** Answers come, and what a node owes comes while it sees Redis; else another connection is tried. */
  expect() {
    this.later('answer', ANSWER, () => { if (this.asked[0] || (this.link.nodeLive && this.subscriptions.named('owed').length)) this.end({}); });
  }

  answer() {
    this.expect();
    return this.asked.shift();
  }

  /** Rights may have come back, or room. */
  askAgain(code, wait = AGAIN) {
    if (!this.welcomed || !this.pipe?.send) return;
    this.later(`again ${code}`, wait, () => this.ask(this.subscriptions.named('refused').filter((t) => this.subscriptions.byName.get(t).code === code)));
  }

  told(asked, resume, m) {
    this.refuse(m.refused ?? []);
    const { followed, skipped } = this.subscriptions.answered(asked, resume, m, this.link.nodeLive);
    if (followed.length) this.link.emit({ t: 'followed', topics: followed });
    this.expect();
    // A node that starts elsewhere than it was asked to would leave a hole: then everything is read again.
    if (skipped.length) this.link.emit({ t: 'resync', topics: skipped, reason: 'gap', spread: 5000 });
  }

  refuse(refused) {
    for (const { topic, code } of refused) if (this.subscriptions.refused(topic, code)) this.link.emit({ t: 'refused', topic, code });
    this.link.tokens.refused(refused);
  }

  unsubscribed(m) {
    const head = this.asked[0];
    // With the last key of an area, the area-wide topic ends too.
    if (head?.drop && m.topics.every((t) => head.topics.some((own) => own === t || areaOf(own) === t && !this.subscriptions.is(t, 'followed')))) return void this.answer();
    this.refuse(m.topics.filter((t) => this.subscriptions.is(t, 'followed')).map((topic) => ({ topic, code: 'forbidden' })));
  }

  // -- messages

  receive(m) {
    const { link } = this;
    this.cancel('pong');
    this.pinged = false;
    if (link.faults.stale && /event|resync|status|pong/.test(m.type)) return;
    link.log('in', this.kind, m);
    switch (m.type) {
      case 'welcome': this.welcome(m); break;
      case 'subscribed': {
        const entry = this.asked[0]?.drop ? null : this.answer();
        this.told(entry?.topics ?? [], entry?.resume, m);    // a poll that goes on may be told without a question
        break;
      }
      case 'event': this.event(m); break;
      case 'resync': {
        const { fresh, rest } = this.subscriptions.resynced(m);
        if (fresh.length) link.emit({ t: 'followed', topics: fresh, fresh });
        if (rest.length) link.emit({ t: 'resync', topics: rest, reason: m.reason, spread: m.spread_ms ?? 0 });
        break;
      }
      case 'unsubscribed': this.unsubscribed(m); break;
      case 'status': link.sight(m); this.expect(); break;
      case 'token-expiring': link.tokens.renew(); break;
      case 'token-accepted': link.tokens.expires(m.expires_in); this.askAgain('forbidden', 0); break;
      case 'pong': this.replaying = false; break;
      case 'closing': return this.end(endOf(m.code, m.reconnect_after_ms));
      case 'error':
        if (m.code === 'bad-token') link.tokens.bad();
        else link.say(m.code, 'warn', m.detail);
    }
    // One proof for all topics: it does not move up while some may still be asked for from an older one. Of another Redis, whose clock may be
    // behind, or of a time that this one has not reached: what was proven before says nothing there.
    if (m.at > this.subscriptions.at ? !this.asked[0] : m.at && /^(redis-changed|live)$/.test(m.reason)) this.subscriptions.at = m.at;
  }

  welcome(m) {
    if (this.welcomed) return;
    const { link, subscriptions } = this;
    this.cancel('patience');
    this.welcomed = true;
    this.heartbeat = Math.max(1, Number(m.heartbeat) || 25) * 1000;
    link.welcomed(this, m);
    if (this.over) return;
    if (this.below) link.say('fallback', 'info', `WebSocket does not get through (does a proxy drop it?). Live updates use ${NAMES[this.kind]}.`);
    this.told(this.first, this.resume, m);
    if (this.over) return;
    if (this.pipe.send) this.beat();
    else this.watch();
    this.catchUp();
    if (!this.pipe.send) this.refuse(this.rest.map((topic) => ({ topic, code: 'too-many' })));
    // What came and went between the question and its answer, and what found no room in it.
    const gone = this.first.filter(([t, gen]) => subscriptions.byName.get(t)?.gen !== gen).map(([t]) => t);
    const rest = this.pipe.send ? this.rest.filter((t) => subscriptions.is(t, 'followed')) : [];
    this.change([...subscriptions.named('wanted'), ...rest], gone);
  }

  event(m) {
    if (!this.subscriptions.event(m)) return;
    const { topic, position, event } = m;
    // Not by `at`: what was missed is sent with the node's present proof, which has moved on while the page was away.
    const replayed = Boolean(position && this.replaying && this.resume?.positions[topic]);
    this.link.emit({ t: 'event', topic, position, replayed, event });
  }

  /** What was missed comes first: a `pong` comes behind it. Without a way up, a moment has to do. */
  catchUp() {
    if (!this.resume) return;
    if (this.pipe.send) this.send({ type: 'ping' });
    else this.later('replay', 1500, () => { this.replaying = false; });
  }

  // -- liveness

  beat() {
    const every = this.link.pingEvery, from = this.env.stamp();
    this.later('ping', every, () => {
      this.ping(this.env.since(from) - every > 5000 ? 2500 : 5000);    // late: this machine slept
      this.beat();
    });
  }

  ping(patience) {
    this.send({ type: 'ping' });
    if (!this.pinged || patience < 5000) this.later('pong', patience, () => this.end({}));
    this.pinged = true;
  }

  /** A stream is heard of once per heartbeat. */
  watch() {
    if (this.kind !== 'sse') return;
    this.later('ping', Math.min(5000, this.heartbeat), () => (this.env.since(this.heard) > this.heartbeat * 1.5 + 5000 ? this.end({}) : this.watch()));
  }

  /** The page came back, or the network did. */
  poke(why) {
    if (!this.welcomed) return;
    if (this.pipe.send) this.ping(2500);
    else if (this.kind === 'sse' && this.env.since(this.heard) > this.heartbeat + 3000) this.end({});
    else if (this.kind !== 'websocket') this.later('probe', 500 + random(1500), () => this.link.probe(this, 15_000, why === 'online'));
  }

  probeLater(delay) { if (this.kind !== 'websocket') this.later('probe', around(delay), () => this.link.probe(this, delay * 2)); }
}

