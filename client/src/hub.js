//! Shares one link among the tabs of one user: a worker is named after its user. Runs in the SharedWorker, or in a page
//! that has none: it sees only ports.

import { PORT_PROTOCOL, SignedOut, covers, now, sleep } from './protocol.js';
import { Link } from './link.js';

/** ms for which a connection is kept for the next page of the same tab. */
const GRACE = 10_000;
/** ms after which a tab that says nothing is taken for gone: frozen, or ended without a word. */
const SILENCE = 180_000;

export class Hub {
  /** port → {topics: Map of topic → {topic, gen, from}, tap, breaks, alive, answers} */
  tabs = new Map();
  link = /** @type {Link} */ (null);
  handed = /** @type {string | null | undefined} */ (undefined);    // a token that came with a tab
  asked = 0;
  grace = /** @type {any} */ (0);
  born = Promise.resolve('-');    // the name of the lock that says that this worker lives

  add(port) { port.onmessage = (e) => this.hear(port, e.data); }

  hear(port, m) {
    const tab = this.tabs.get(port);
    if (tab) tab.alive = now();
    switch (m.t) {
      case 'hi': return void this.born.then((life) => port.postMessage({ t: 'hello', v: PORT_PROTOCOL, life }));
      case 'join': return this.join(port, m);
      case 'close': case 'bye':
        this.leave(port, m.t === 'bye');
        return port.close();
    }
    if (!tab) return port.postMessage({ t: 'gone' });
    switch (m.t) {
      case 'topics': this.topics(port, tab, m.topics); break;
      case 'token': tab.answers.get(m.id)?.(m); break;
      case 'poke': this.link.poke(m.why); break;
      case 'simulate': tab.breaks = true; this.link.simulate(m.faults); break;
      case 'tap': tab.tap = true; break;
      case 'alive': this.emit(m);    // to all, so that those who are gone are found
    }
  }

  join(port, m) {
    clearTimeout(this.grace);
    const tab = { topics: new Map(), tap: m.tap, alive: now(), answers: new Map() };
    this.tabs.set(port, tab);
    const over = this.link?.state === 'off';
    if (!this.link || over) this.handed = m.token;
    const first = !this.link;
    this.link ??= new Link({
      url: m.url, transports: m.transports, client: m.client, favourite: m.favourite, was: m.was, config: m.config,
      token: (topics, spend) => this.token(topics, spend), emit: (message) => this.emit(message), isTapped: () => [...this.tabs.values()].some((t) => t.tap),
    });
    this.topics(port, tab, m.topics);
    if (first) this.link.start();
    else if (over) this.link.again();    // whoever comes may have been let in again
    port.postMessage({ t: 'status', status: this.link.status });
  }

  /** @param {boolean} maybeBack  the page went without having been closed: its next one may come at once */
  leave(port, maybeBack) {
    const tab = this.tabs.get(port);
    if (!tab) return;
    this.tabs.delete(port);
    for (const answer of tab.answers.values()) answer({});
    if (tab.breaks) this.link.simulate({});    // who broke it for a try is gone, perhaps by a reload
    if (this.tabs.size) return this.follow();
    if (maybeBack) this.grace = setTimeout(() => this.end(), GRACE);
    else this.end();
  }

  end() {
    this.link?.close();
    this.link = null;
    this.handed = undefined;
  }

  // -- topics

  topics(port, tab, topics) {
    const before = tab.topics;
    tab.topics = new Map(topics.map((record) => [record.topic, record]));
    const fresh = topics.filter(({ topic, gen }) => before.get(topic)?.gen !== gen).map(({ topic }) => topic);
    this.follow(fresh);
    for (const topic of fresh) {
      const record = this.link.subscriptions.byName.get(topic);
      if (record.state === 'followed') this.tell(port, tab, topic);
      else if (record.state === 'refused') port.postMessage({ t: 'refused', topic, gen: tab.topics.get(topic).gen, code: record.code });
    }
  }

  follow(again) {
    const wanted = new Map();
    for (const { topics } of this.tabs.values()) for (const [topic, { from }] of topics) wanted.set(topic, wanted.get(topic) ?? from);
    this.link?.follow(wanted, again);
  }

  /** From now on the tab misses nothing. A page that a server rendered may have missed nothing until now, either. */
  tell(port, tab, topic, fresh) {
    const record = tab.topics.get(topic);
    const resumed = !fresh && record.from && this.link.nodeLive && this.link.subscriptions.isCurrent(topic, record.from);
    record.from = undefined;
    port.postMessage({ t: 'followed', topic, gen: record.gen, resumed });
  }

  emit(m) {
    for (const [port, tab] of this.tabs) {
      // A frozen tab joins again when it wakes.
      if (now() - tab.alive > SILENCE) { this.leave(port, true); continue; }
      const follows = (topic) => [...tab.topics.keys()].some((own) => covers(own, topic));
      switch (m.t) {
        case 'message': if (tab.tap) port.postMessage(m); break;
        case 'event': if (follows(m.topic)) port.postMessage(m); break;
        case 'followed': for (const topic of m.topics) if (tab.topics.has(topic)) this.tell(port, tab, topic, m.fresh); break;
        case 'refused': if (tab.topics.has(m.topic)) port.postMessage({ ...m, gen: tab.topics.get(m.topic).gen }); break;
        case 'resync': {
          const topics = m.topics.filter(follows);
          if (topics.length) port.postMessage({ ...m, topics });
          break;
        }
        default: port.postMessage(m);
      }
    }
  }

  // -- tokens

  /** From any living tab: the newest is asked first, and one more each second. */
  async token(topics, spend) {
    const { handed } = this;
    this.handed = undefined;
    if (handed !== undefined) return handed;
    let done = false;
    const ask = async ([port, tab], nth) => {
      await sleep(nth * 1000);
      if (done) return;
      await spend();
      const id = ++this.asked;
      port.postMessage({ t: 'token', id, topics });
      const m = await new Promise((answer) => { if (this.tabs.has(port)) tab.answers.set(id, answer); else answer({}); });
      tab.answers.delete(id);
      if (!('token' in m) && !m.signedOut) throw new Error(m.error ?? 'the page left');
      done = true;
      return m;
    };
    const m = await Promise.any([...this.tabs].reverse().map(ask)).catch((e) => { throw e.errors?.[0] ?? e; });
    if (m.signedOut) throw new SignedOut();
    return m.token;
  }
}
