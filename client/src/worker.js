//! The worker's side, and the pipe that takes its place in a page: alike in what passes (copies) and when (later).

import { Hub } from './hub.js';

/** Two ends; what is posted at one arrives at the other as a copy, in a later turn. */
export function pipe() {
  const end = () => /** @type {any} */ ({ close() { this.closed = true; } });
  const a = end(), b = end();
  for (const [from, to] of [[a, b], [b, a]]) {
    from.postMessage = (message) => {
      const data = structuredClone(message);
      queueMicrotask(() => { if (!to.closed) to.onmessage?.({ data }); });
    };
  }
  return [a, b];
}

/** A worker of ours is named so; whoever imports the module into a worker of their own is left alone. */
export const WORKER = 'carillon: ';

export function serve(scope) {
  const hub = new Hub();
  const life = WORKER + Math.random();
  // Pages wait for this lock: they get it when the worker has died.
  if (scope.navigator?.locks) hub.born = new Promise((held) => { scope.navigator.locks.request(life, () => { held(life); return new Promise(() => {}); }); });
  scope.onconnect = (e) => hub.add(e.ports[0]);
}
