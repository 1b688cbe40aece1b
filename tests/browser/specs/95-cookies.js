// A browser with odd cookies at the node's own TLS listener: over HTTP/2 they come in several fields, and none hides the one that counts.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as path } from 'node:path';
import { test } from '../lib/harness.js';
import { node } from '../lib/rig.js';
import { context } from '../lib/browser.js';
import { arrives, becomes, mint } from '../lib/front.js';

function certificate(t) {
  const dir = mkdtempSync(path(tmpdir(), 'carillon-cookies-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const [cert, key] = [path(dir, 'cert.pem'), path(dir, 'key.pem')];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert], { stdio: 'ignore' });
  return { HTTP__TLS_CERT: cert, HTTP__TLS_KEY: key };
}

// In the order in which they are set, which is that in which they are sent; the editor's own stands in the middle.
const BEFORE = ['grüße=schön 🍁', '=without a name', 'quoted="a, b=c"', 'json={"a":[1,2]}', 'sessions=almost', 'session2=almost'];
const AFTER = ['empty=', `long=${'x'.repeat(3000)}`, 'SESSION=of another case', 'ünï=cödé', 'last=%00%0d%0a'];

for (const transport of ['websocket', 'sse', 'poll']) {
  test(`odd cookies at the node's own TLS listener (${transport}): the editor is who they are, and is told everything`, async (t) => {
    const a = await node(t, 'a', { ...certificate(t), AUTH__COOKIE: 'session' });
    const origin = `https://127.0.0.1:${a.port}`;
    const ctx = await context(t, { ignoreHTTPSErrors: true });
    const page = await ctx.newPage();
    // Whatever the node itself shows: a page that is made up here could open no WebSocket to this machine.
    await page.goto(`${origin}/realtime/config`);
    const kept = await page.evaluate((cookies) => { for (const cookie of cookies) document.cookie = `${cookie}; path=/`; return document.cookie; }, [...BEFORE, `session=${mint('anna')}`, ...AFTER]);
    assert.ok(kept.split('; ').length >= 10, `the browser keeps them: ${kept.slice(0, 300)}`);
    await page.evaluate(async (transport) => {
      const { Realtime } = await import('/realtime/realtime.js');
      const noted = window.noted = { events: [] };
      const rt = window.rt = new Realtime({ transports: [transport] });
      rt.on('comments:42', (event) => noted.events.push({ n: event.data?.n }));
    }, transport);
    await becomes(page, 'live', { transport });
    await arrives(page, a);
    const protocol = await page.evaluate(() => performance.getEntriesByType('resource').find((one) => one.name.includes('realtime.js')).nextHopProtocol);
    assert.equal(protocol, 'h2');
  });
}
