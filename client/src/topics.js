//! What a link follows: one record per topic, with a generation number that tells a subscription from an earlier one of
//! the same topic, and where each stands. Pure.

import { MESSAGE, areaOf, bytesOf, covers, isWhole } from './protocol.js';

/** Positions that are remembered against doubles. */
const SEEN = 2000;
/** A live event has no position: a page is believed to know it only if it is proven (ms of Redis' clock) well after it. */
const LIVE_DOUBT = 30_000;

/**
 * @typedef {{ at: number, positions: Record<string, string> }} From  where a rendered page stands
 * @typedef {{ gen: number, state: 'wanted' | 'asked' | 'owed' | 'followed' | 'refused', code?: string, from?: From }} Topic
 *   `owed`: the node has not said yet where it begins, and will say so by a `resync`
 */

export class Topics {
  byName = /** @type {Map<string, Topic>} */ (new Map());
  positions = /** @type {Record<string, string>} */ ({});
  at = 0;
  gen = 0;
  /** Bytes of topics and positions in one message; less where a node takes less. */
  room = MESSAGE;
  seen = new Set();
  /** Up to when a live event may have been missed here, or one has come; in all topics of an area where it is the area's. */
  liveAt = /** @type {Record<string, number>} */ ({});

  is(topic, state) { return this.byName.get(topic)?.state === state; }

  named(state) { return [...this.byName].filter(([, r]) => r.state === state).map(([topic]) => topic); }

  /** @param {Map<string, From | undefined>} wanted */
  follow(wanted) {
    const added = [], gone = [];
    for (const [topic, { state }] of [...this.byName]) {
      if (wanted.has(topic)) continue;
      this.byName.delete(topic);
      if (state !== 'refused') gone.push(topic);
    }
    // What is still followed: a key implies its area, and of a whole area it counts what has come. What begins now has no past here.
    const needed = new Set([...this.byName].flatMap(([t]) => [t, areaOf(t)]));
    for (const t of Object.keys(this.positions)) if (!needed.has(t)) delete this.positions[t];
    for (const place of this.seen) if (!needed.has(place.split(' ')[0]) && !wanted.has(areaOf(place) + ':*')) this.seen.delete(place);
    for (const [topic, page] of wanted) {
      if (this.byName.has(topic)) continue;
      // Beside its whole area a page begins anew, and reads: of what has come by the area, what it lacks would not be taken twice.
      const from = !this.byName.has(areaOf(topic) + ':*') && page;
      this.byName.set(topic, { gen: ++this.gen, state: 'wanted', from });
      for (const t of from ? [topic, areaOf(topic)] : []) this.positions[t] ??= (this.liveAt[t] = from.at - LIVE_DOUBT, from.positions[t]);
      added.push(topic);
    }
    return { added, gone };
  }

  /** Topics that fit into one message, and the rest. */
  split(topics) {
    let size = 0;
    const fits = topics.findIndex((t) => (size += bytesOf(t).length * 2 + (this.positions[t]?.length ?? 0) + 30) > this.room);
    return fits < 0 ? [topics, []] : [topics.slice(0, fits), topics.slice(fits)];
  }

  asked(topics) {
    return topics.map((topic) => {
      const record = this.byName.get(topic);
      if (record.state !== 'followed') record.state = 'asked';
      return [topic, record.gen];
    });
  }

  /** The connection is gone, and with it the questions that were under way. */
  lost() { for (const r of this.byName.values()) if (r.state === 'asked' || r.state === 'owed') r.state = 'wanted'; }

  /** Where to go on with these; undefined: from now on. */
  resume(topics) {
    const positions = {};
    let { at } = this;
    for (const topic of topics) {
      const { from } = this.byName.get(topic);
      if (from) at = Math.min(at || from.at, from.at);
      for (const t of [topic, areaOf(topic)]) if (this.positions[t]) positions[t] = this.positions[t];
    }
    if (topics.some((t) => this.positions[t] || this.is(t, 'followed'))) return { ...(at && { at }), positions };
  }

  /** A welcome or `subscribed`: which of the asked are followed now, and which topics start elsewhere than was asked. */
  answered(asked, resume, m, live) {
    const skipped = [], followed = [];
    for (const [topic, position] of Object.entries(m.positions ?? {})) {
      const held = resume?.positions[topic];
      if (held && held !== position && this.positions[topic] === held) skipped.push(topic);
      if (!this.positions[topic]) this.liveAt[topic] = m.at;
      this.moved(topic, position);
    }
    for (const [topic, gen] of asked) {
      const record = this.byName.get(topic);
      if (record?.gen !== gen || record.state !== 'asked') continue;
      // What a resumed answer leaves out is owed a resync: that one begins it.
      const owed = live && resume && !m.positions?.[topic] && !isWhole(topic);
      record.state = owed ? 'owed' : 'followed';
      if (!owed) followed.push(topic);
    }
    return { followed, skipped };
  }

  /** Which topics begin with this resync, and which are to be read again. */
  resynced(m) {
    const fresh = m.topics.filter((t) => this.is(t, 'owed'));
    for (const t of m.topics) {
      this.moved(t, m.positions?.[t]);
      this.liveAt[t] = m.at;
    }
    for (const t of fresh) this.byName.get(t).state = 'followed';
    // Who begins just now could not have missed anything; others that the topic concerns have.
    return { fresh, rest: m.topics.filter((t) => [...this.byName].some(([own]) => !fresh.includes(own) && covers(own, t))) };
  }

  /** A node has said where a topic stands: what is known of it no longer begins with a page. */
  moved(topic, position) {
    this.positions[topic] = position;
    delete this.byName.get(topic)?.from;
  }

  refused(topic, code) {
    const record = this.byName.get(topic);
    if (!record) return false;
    record.state = 'refused';
    record.code = code;
    delete this.positions[topic];
    this.liveAt[areaOf(topic)] = Infinity;    // its area may have ended with it
    return true;
  }

  /** Takes an event; false: it came before. */
  event(m) {
    const { topic, position } = m;
    if (position) {
      const place = `${topic} ${position}`;
      // Only where an answer has told a place. What comes by a whole area alone has none: nobody said that it was followed up to there.
      if (this.positions[topic]) this.positions[topic] = position;
      if (this.seen.has(place)) return false;
      this.seen.add(place);
      if (this.seen.size > SEEN) this.seen.delete(this.seen.values().next().value);
    } else this.liveAt[areaOf(topic)] = m.at ?? Infinity;
    return true;
  }

  /** Has a page that stands there missed nothing of what came here? Where nobody can tell, it reads again. @param {From} from */
  isCurrent(topic, from) {
    return [topic, areaOf(topic)].every((t) => !(from.at < this.liveAt[t] + LIVE_DOUBT) && from.positions[t] && from.positions[t] === this.positions[t]);
  }
}
