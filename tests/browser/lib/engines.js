// Firefox and WebKit as Debian ships them, driven as far as the client's core needs: pages, and functions run in them.
// Each gives `open(url)` → {run(fn, ...args), close()}.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { until } from './harness.js';
import { freePort } from './rig.js';

export async function firefox(t) {
  process.env.PUPPETEER_SKIP_DOWNLOAD = '1';
  const { default: puppeteer } = await import('puppeteer-core');
  const browser = await puppeteer.launch({ browser: 'firefox', executablePath: process.env.FIREFOX ?? '/usr/bin/firefox-esr', headless: true });
  t.after(() => browser.close());
  return {
    async open(url) {
      const page = await browser.newPage();
      await page.goto(url);
      return { run: (fn, ...args) => page.evaluate(fn, ...args), close: () => page.close() };
    },
  };
}

const BROWSER = '/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser';

/** WebKitGTK's own driver, by W3C WebDriver over HTTP, on a display of its own. */
export async function webkit(t) {
  const start = (program, args, env = {}) => {
    const child = spawn(program, args, { stdio: 'ignore', env: { ...process.env, ...env } });
    t.after(() => new Promise((go) => { if (child.exitCode !== null) return go(); child.once('exit', go); child.kill(); }));
    return child;
  };
  const display = `:${200 + (process.pid % 400)}`;
  start('Xvfb', [display, '-screen', '0', '1280x900x24', '-nolisten', 'tcp']);
  await until('the display is there', () => existsSync(`/tmp/.X11-unix/X${display.slice(1)}`));
  const port = await freePort();
  start('WebKitWebDriver', [`--port=${port}`], { DISPLAY: display, WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: '1', LIBGL_ALWAYS_SOFTWARE: '1' });
  const call = async (method, path, body) => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method, body: body && JSON.stringify(body) });
    const { value } = await answer.json();
    if (!answer.ok) throw new Error(`${path}: ${value.error} ${value.message}`);
    return value;
  };
  await until('the driver answers', async () => (await call('GET', '/status')).ready, 20_000);
  const { sessionId } = await call('POST', '/session', { capabilities: { alwaysMatch: { 'webkitgtk:browserOptions': { binary: BROWSER, args: ['--automation'] } } } });
  const session = `/session/${sessionId}`;
  t.after(() => call('DELETE', session).catch(() => {}));
  await call('POST', `${session}/timeouts`, { script: 60_000 });
  // The driver has one window in hand at a time.
  let turn = Promise.resolve(), first = true;
  const inTurn = (what) => { const result = turn.then(what); turn = result.catch(() => {}); return result; };
  return {
    open: (url) => inTurn(async () => {
      const handle = first ? await call('GET', `${session}/window`) : (await call('POST', `${session}/window/new`, { type: 'tab' })).handle;
      first = false;
      await call('POST', `${session}/window`, { handle });
      await call('POST', `${session}/url`, { url });
      const run = (fn, ...args) => inTurn(async () => {
        await call('POST', `${session}/window`, { handle });
        const script = `const done = arguments[arguments.length - 1]; Promise.resolve((${fn})(...arguments[0])).then((value) => done({ value }), (error) => done({ error: String(error) }));`;
        const { value, error } = await call('POST', `${session}/execute/async`, { script, args: [args] });
        if (error) throw new Error(error);
        return value;
      });
      return { run, close: () => inTurn(async () => { await call('POST', `${session}/window`, { handle }); await call('DELETE', `${session}/window`); }) };
    }),
  };
}
