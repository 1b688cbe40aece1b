//! Bundles src/ into the one file that nodes embed and serve, with its source map. `--check` compares instead of writing.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = fileURLToPath(new URL('.', import.meta.url));

/**
 * Names that live inside the module only: the bundle has short ones for them. None may be in a message of page and worker
 * or of client and node, in the table of states, in realtime.d.ts or in the DOM.
 */
const INSIDE = `
  alone silent quick startedAt isShareable joinWorker attach restart detach handToken listen handed kept grace leave follow tell attempt
  nodeLive everWelcomed moving checkedAt pingEvery idleCut short distrust older prepare kindsOf climb ended away lived isBlocked welcomed sight learnIdle tryWebSocket
  readConfig said asking tapped wasLive ending reckon forget settle announce timers later cancel cancelAll replaying pinged answer askAgain
  refuse unsubscribed receive catchUp beat probeLater askedAt lifetime expires renewIn renew liveAt named answered resynced isCurrent rung kinds lostAt hurry
  session env heard sent born below first rest pipe question told asked lasts fresh bad gone wire channel run update change subscribed expect reckon
  link tabs seen kind emit log until page handle fire owed probe is stamp planned watch meet entered answers budget tokens isTapped subscriptions byName askedFor breaks skipped reachable foreign probing spent spend
  watchers room wall over down step poke lost wait moved handlers alive again added
`.trim().split(/\s+/);

/** The file and its map, as text. */
export async function bundle() {
  const { outputFiles } = await build({
    absWorkingDir: here, entryPoints: ['src/index.js'], outfile: 'realtime.js', write: false, bundle: true, minify: true, format: 'esm', target: 'es2022', charset: 'utf8',
    sourcemap: true, legalComments: 'none', mangleProps: new RegExp(`^(${INSIDE.join('|')})$`),
  });
  return Object.fromEntries(outputFiles.map(({ path, text }) => [path.slice(here.length), text]));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const files = await bundle();
  const differ = Object.keys(files).filter((name) => readFileSync(`${here}${name}`, 'utf8') !== files[name]);
  if (!process.argv.includes('--check')) for (const name of differ) writeFileSync(`${here}${name}`, files[name]);
  else if (differ.length) { console.error(`${differ.join(', ')}: not what src/ makes; run npm run build`); process.exit(1); }
}
