// The client by itself: unit tests in Node, and its types.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from '../lib/harness.js';

const folder = fileURLToPath(new URL('../../../client/', import.meta.url));
const run = (...args) => new Promise((go, no) => {
  const child = spawn(args[0], args.slice(1), { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  child.stdout.on('data', (d) => { out += d; });
  child.stderr.on('data', (d) => { out += d; });
  child.on('exit', (code) => (code === 0 ? go(out) : no(new Error(out.slice(-4000)))));
});
async function installed() { if (!existsSync(`${folder}node_modules/ws`)) await run('npm', 'ci', '--silent', '--no-fund', '--no-audit'); }

test('node --test', async () => {
  await installed();
  const out = await run(process.execPath, '--test', '--test-force-exit', '--test-concurrency=1', '--test-reporter=tap', 'test/realtime.test.js', 'test/react.test.js');
  const size = out.match(/realtime\.js: (.*)/)?.[1];
  console.log(`        ${out.match(/# pass (\d+)/)[1]} unit tests; realtime.js is ${size}`);
});

test('tsc --checkJs, and a page written in TypeScript', async () => {
  await installed();
  await run(process.execPath, 'node_modules/typescript/bin/tsc', '-p', 'test/tsconfig.json');
  await run(process.execPath, 'node_modules/typescript/bin/tsc', '-p', 'test/types/tsconfig.json');
});
