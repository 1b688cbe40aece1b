// What the client's unit tests share: a Realtime before a fake node, an auditor, a quiet console, a SharedWorker in this process.
import assert from 'node:assert/strict';
import { WebSocket } from 'ws';
import { FakeNode, mint, until } from './fake-node.js';

globalThis.WebSocket = class extends WebSocket { constructor(url) { super(url); this.on('error', () => {}); } };    // a browser's does not throw either
// The built file is what is tested; the sources, while they are worked on.
export const { Realtime, Hub, VERSION } = await import(process.env.REALTIME_SOURCE ? '../src/index.js' : '../realtime.js');

export async function setup(t, options = {}, client = {}) {
  const node = await new FakeNode(options).listen();
  const rt = new Realtime({ url: node.url, token: async () => mint('anna'), shared: false, ...client });
  const states = [];
  rt.onStatus((s) => states.push(s.state));
  t.after(async () => { rt.close(); await node.kill().catch(() => {}); });
  return { node, rt, states, live: (kind) => until(`live by ${kind}`, () => rt.status.state === 'live' && (!kind || rt.status.transport === kind)) };
}
/** Follows a topic and notes what comes, as an auditor does. */
export function audit(rt, topic) {
  const events = [], resyncs = [], replayed = [];
  rt.on(topic, (e, about) => { events.push(e.n); replayed.push(about.replayed); });
  rt.onResync(topic, (r) => resyncs.push(`${r.topic} ${r.reason}`));
  return { events, resyncs, replayed, followed: () => until(`${topic} followed`, () => resyncs.includes(`${topic} subscribed`)) };
}
/** A page that was away while the second of two events was published, and is coming back. */
export async function back(t, options) {
  const { node, rt, live } = await setup(t, options);
  const a = audit(rt, 'comments:42');
  await live();
  await a.followed();
  node.publish('comments:42', { type: 'x.y', n: 1 });
  await until('first', () => a.events.length === 1);
  rt.simulate({ offline: true });
  node.publish('comments:42', { type: 'x.y', n: 2 });
  rt.simulate({});
  return { node, a };
}

export const silence = (t) => { const said = []; for (const level of ['info', 'warn', 'error']) t.mock.method(console, level, (m) => said.push(m)); return said; };

// -- the worker, in one process: what SharedWorker does is join pages to a Hub by name

export function workers(t) {
  const hubs = new Map(), ports = [];
  globalThis.SharedWorker = class {
    constructor(url, { name, type }) {
      url = new URL(url);
      assert.equal(type, 'module');
      assert.match(url.href, /realtime\.js$/);
      const { port1, port2 } = new MessageChannel();
      if (!hubs.has(name)) hubs.set(name, new Hub());
      hubs.get(name).add(port2);
      ports.push(port1, port2);
      this.port = port1;
    }
  };
  t.after(() => { delete globalThis.SharedWorker; for (const p of ports) p.close(); });
  return hubs;
}
