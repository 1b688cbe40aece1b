// The package as npm would get it: built from its sources, complete, and sound for bundlers and TypeScript.
import test from 'node:test';
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { bundle } from '../build.mjs';

const cwd = fileURLToPath(new URL('..', import.meta.url));
const run = (program, ...words) => promisify(execFile)(program, words, { cwd }).catch((error) => assert.fail(`${error.stdout}${error.stderr}`));

test('realtime.js and its map are what src/ makes', async () => {
  const files = await bundle();
  assert.deepEqual(Object.keys(files).sort(), ['realtime.js', 'realtime.js.map']);
  for (const [name, text] of Object.entries(files)) assert.ok(readFileSync(cwd + name, 'utf8') === text, `${name} is older than src/: npm run build`);
});

test('what is packed: the module, hooks, the fake, types, licence', async () => {
  const { stdout } = await run('npm', 'pack', '--dry-run', '--json');
  const names = JSON.parse(stdout)[0].files.map(({ path }) => path).sort();
  assert.deepEqual(names, ['CHANGELOG.md', 'LICENSE', 'README.md', 'package.json', 'react.d.ts', 'react.js', 'realtime.d.ts', 'realtime.js', 'realtime.js.map', 'testing.d.ts', 'testing.js']);
});

test('publint and attw find nothing', async () => {
  await Promise.all([run('npx', '--no-install', 'publint', '--strict'), run('npx', '--no-install', 'attw', '--pack', '.', '--profile', 'esm-only')]);
});
