// The model of the link (model.js): 100,000 sequences, shared out over the cores; and its table of states by itself.
import test from 'node:test';
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { TRANSITIONS } from '../src/link.js';

const RUNS = Number(process.env.MODEL_RUNS ?? 100_000), SHARES = availableParallelism();
const model = fileURLToPath(new URL('model.js', import.meta.url));

test(`${RUNS} random sequences end well`, async () => {
  const share = Math.ceil(RUNS / SHARES);
  const run = (n) => promisify(execFile)(process.execPath, [model, String(1 + n * share), String(share)]);
  await Promise.all(Array.from({ length: SHARES }, (_, n) => run(n).catch((error) => assert.fail(error.stdout + error.stderr))));
});

test('each state can be reached and left, and `closed` is the end', () => {
  const reached = new Set(['idle', ...Object.values(TRANSITIONS).flatMap((events) => Object.values(events))]);
  assert.deepEqual([...reached].sort(), Object.keys(TRANSITIONS).sort());
  for (const [state, events] of Object.entries(TRANSITIONS)) assert.equal(events.close, state === 'closed' ? undefined : 'closed', state);
});
