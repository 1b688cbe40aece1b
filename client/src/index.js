//! The module as pages import it, which is its own SharedWorker script too.

import { Hub } from './hub.js';
import { Realtime } from './page.js';
import { VERSION } from './protocol.js';
import { WORKER, serve } from './worker.js';

export { Hub, Realtime, VERSION };

const scope = /** @type {any} */ (globalThis);
if ('SharedWorkerGlobalScope' in scope && String(scope.name).startsWith(WORKER)) serve(scope);
