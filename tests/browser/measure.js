// How long a page view takes until it is live, and what it asks nodes for on the way. CARILLON_BIN=… node measure.js [VIEWS]
// REALTIME_JS names another build of the module to compare with. It measures this machine as it is; run it when nothing else does.
import { node } from './lib/rig.js';
import { cleanUp, until } from './lib/harness.js';
import { context, quit } from './lib/browser.js';
import { front, mint } from './lib/front.js';

const views = Number(process.argv[2] ?? 12);
const ends = [];
const t = { after: (end) => ends.push(end) };

/** A page as a server renders it, with its options in it. */
const rendered = (module, options) => `<!doctype html><title>page</title><script type="module">
  import { Realtime } from ${JSON.stringify(module)};
  const rt = new Realtime({ token: async () => (await fetch('/token')).text(), ...${JSON.stringify(options)} });
  rt.on('comments:42', () => {});
  rt.onStatus(({ state }) => { if (state === 'live') window.liveAt ??= performance.now(); });
</script>`;

async function series(what, { options = () => ({}), module = () => '/realtime/realtime.js' } = {}) {
  const a = await node(t, 'a'), site = await front(t, a);
  const config = await (await fetch(`${a.base}/realtime/config`)).json();
  site.hook = (req, res, url) => {
    if (url.pathname !== '/page') return false;
    res.writeHead(200, { 'content-type': 'text/html' }).end(rendered(module(config), options(config)));
    return true;
  };
  const page = await (await context(t)).newPage();
  const times = [], asked = [];
  for (let view = 0; view < views; view++) {
    const before = site.requests.length;
    await page.goto(`${site.origin}/page?${view}`);
    times.push(Math.round(await until('live', () => page.evaluate(() => window.liveAt))));
    asked.push(site.requests.slice(before).filter((r) => r.path.startsWith('/realtime')).length);
  }
  const [first, ...later] = times;
  const middle = (list) => [...list].sort((x, y) => x - y)[Math.floor(list.length / 2)];
  console.log(`${what.padEnd(40)} first view ${String(first).padStart(4)} ms, ${asked[0]} requests to nodes; later ${String(middle(later)).padStart(4)} ms, ${middle(asked.slice(1))} requests (medians of ${views - 1})`);
}

const brought = (config) => ({ user: 'anna', start: { config, token: mint('anna') } });
try {
  await series('token() only');
  if (!process.env.REALTIME_JS) {
    await series('with `start`', { options: brought });
    await series('with `start`, the module under its hash', { options: brought, module: (config) => config.script });
  }
} finally {
  for (const end of ends.reverse()) await end();
  await cleanUp();
  await quit();
}
