// Runs the specs, or those whose file or name contains a word of the command line.
import { readdirSync } from 'node:fs';
import { cleanUp, file, run } from './lib/harness.js';
import { quit } from './lib/browser.js';

for (const name of readdirSync(new URL('specs/', import.meta.url)).sort()) {
  file(name.replace('.js', ''));
  await import(`./specs/${name}`);
}
process.on('unhandledRejection', (error) => console.log(`        after its test: ${error?.message ?? error}`));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, async () => { await cleanUp(); await quit(); process.exit(1); });
const ok = await run(process.argv.slice(2));
await quit();
process.exit(ok ? 0 : 1);
