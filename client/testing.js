// For tests of pages: a Realtime without a node, which plays what the test says. Handlers, `ready()`, states and the first
// `subscribed` are those of the real one. Nothing is asked of any server.
import { Realtime } from './realtime.js';

export class FakeRealtime extends Realtime {
  /** @param {{ state?: string }} [options] */
  constructor({ state = 'live', ...options } = {}) {
    super({ ...options, shared: false, transports: [], start: { ...options.start, config: {} } });
    this.connection.end();
    this.connection.post = (message) => { if (message.t === 'topics') this.#follow(); };
    this.playState(state);
  }

  /** An event, to whoever follows the topic. */
  playEvent(topic, event, { position, replayed = false } = {}) { this.hear({ t: 'event', topic, event, position, replayed }); }

  /** "These may have changed": at once, without the spread of a real one. */
  playResync(topics, reason = 'gap') { this.hear({ t: 'resync', topics: [topics].flat(), reason, spread: 0 }); }

  /** What a badge shows. */
  playState(state, more = {}) {
    const transport = state === 'live' ? 'websocket' : null;
    this.hear({ t: 'status', status: { state, since: new Date().toISOString(), transport, node: 'fake', user: 'anna', reason: state === 'live' ? null : 'lost', late: [], ...more } });
    if (state === 'live') this.#follow();
  }

  playRefusal(topic, code = 'forbidden') {
    const record = this.records.get(topic);
    if (record) this.hear({ t: 'refused', topic, gen: record.gen, code });
  }

  connect() { if (!this.closed) this.playState('live'); }

  simulate() {}

  #follow() {
    if (this.status.state !== 'live') return;
    for (const [topic, { gen, state }] of [...this.records]) if (state === 'asked') this.hear({ t: 'followed', topic, gen, resumed: false });
  }
}
