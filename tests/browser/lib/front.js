// A site before a node: one origin for its page, its token endpoint and /realtime, as in front of a CMS. It counts what
// comes, can answer in the node's place, and can hold back, cut and refuse. With `node: null` everything is answered by hooks.
import { createHmac } from 'node:crypto';
import http from 'node:http';
import net from 'node:net';
import { readFileSync } from 'node:fs';
import { until } from './harness.js';
import { SECRET } from './rig.js';
import { context } from './browser.js';

const b64 = (o) => Buffer.from(JSON.stringify(o)).toString('base64url');
/** A token as the CMS makes it. */
export function mint(sub, topics = ['*'], seconds = 600) {
  const iat = Math.floor(Date.now() / 1000);
  const head = `${b64({ alg: 'HS256', typ: 'JWT' })}.${b64({ sub, iat, exp: iat + seconds, topics })}`;
  return `${head}.${createHmac('sha256', SECRET).update(head).digest('base64url')}`;
}

/**
 * `hook(req, res, url)` answers true where it has taken the request; `upgrade(req, socket, head)` likewise. `site.user`
 * is who is signed in (null: nobody), `site.ttl` and `site.topics` what their tokens say.
 */
export async function front(t, node, { hook, upgrade, html, headers } = {}) {
  const site = { requests: [], user: 'anna', ttl: 600, topics: ['*'], tokens: 0, hook, upgrade, node, html: html ?? '<!doctype html><title>site</title><body></body>' };
  const sockets = new Set();
  const server = http.createServer(async (req, res) => {
    const url = new URL(req.url, 'http://site');
    site.requests.push({ at: Date.now(), method: req.method, url: req.url, path: url.pathname });
    if (await site.hook?.(req, res, url)) return;
    if (process.env.REALTIME_JS && url.pathname === '/realtime/realtime.js') return res.writeHead(200, { 'content-type': 'text/javascript' }).end(readFileSync(process.env.REALTIME_JS));    // while it is being worked on
    if (url.pathname === '/token') { site.tokens++; return res.writeHead(200, { 'content-type': 'text/plain', 'cache-control': 'no-store' }).end(site.user === null ? '' : mint(site.user, site.topics, site.ttl)); }
    if (!url.pathname.startsWith('/realtime')) return res.writeHead(200, { 'content-type': 'text/html', ...headers }).end(site.html);
    if (!site.node) return res.writeHead(404).end();
    const onward = http.request({ host: '127.0.0.1', port: site.node.port, path: req.url, method: req.method, headers: req.headers }, (answer) => {
      res.writeHead(answer.statusCode, answer.headers);
      answer.pipe(res);
      answer.on('error', () => res.destroy());
    });
    onward.on('error', () => { if (!res.headersSent) res.writeHead(502); res.end(); });
    res.on('close', () => onward.destroy());
    req.pipe(onward);
  });
  server.on('connection', (s) => { sockets.add(s); s.on('close', () => sockets.delete(s)); s.on('error', () => {}); });
  server.on('upgrade', async (req, socket, head) => {
    site.requests.push({ at: Date.now(), method: 'UPGRADE', url: req.url, path: '/realtime' });
    socket.on('error', () => {});
    if (await site.upgrade?.(req, socket, head)) return;
    if (!site.node) return socket.destroy();
    const onward = net.connect(site.node.port, '127.0.0.1', () => {
      const lines = [`${req.method} ${req.url} HTTP/1.1`];
      for (let i = 0; i < req.rawHeaders.length; i += 2) lines.push(`${req.rawHeaders[i]}: ${req.rawHeaders[i + 1]}`);
      onward.write(`${lines.join('\r\n')}\r\n\r\n`);
      onward.write(head);
      onward.pipe(socket);
      socket.pipe(onward);
    });
    onward.on('error', () => socket.destroy());
    onward.on('close', () => socket.destroy());
    socket.on('close', () => onward.destroy());
  });
  await new Promise((go) => server.listen(0, '127.0.0.1', go));
  t.after(() => { for (const s of sockets) s.destroy(); server.close(); });
  return Object.assign(site, {
    origin: `http://127.0.0.1:${server.address().port}`,
    /** Requests of the client since then: not the page's own, and not the script's. */
    asked: (since = 0) => site.requests.filter((r) => r.at >= since && (r.path === '/token' || r.path.startsWith('/realtime')) && !/realtime.*\.js/.test(r.path)),
    cut: () => { for (const s of sockets) s.destroy(); },
  });
}

/** WebSocket is answered by a proxy that knows none. */
export const noWebSocket = (req, socket) => { socket.end('HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n'); return true; };

/** A page of the site; `said` is its console, `broken` what was thrown in it. */
export async function visit(t, site, { ctx, path = '/page' } = {}) {
  const page = await (ctx ?? await context(t)).newPage();
  Object.assign(page, { said: [], broken: [] });
  page.on('console', (m) => page.said.push(m.text()));
  page.on('pageerror', (e) => page.broken.push(e.message));
  await page.goto(site.origin + path);
  return page;
}

/**
 * A Realtime in the page, as `rt`, which notes what it tells: states, events, resyncs, refusals. `options` must be JSON;
 * without a token in it, the site's is fetched.
 */
export async function join(page, options = {}, topics = ['comments:42']) {
  await page.evaluate(async ([options, topics]) => {
    const { Realtime } = await import('/realtime/realtime.js');
    const noted = window.noted = { states: [], events: [], resyncs: [], refused: [], tokens: [] };
    const token = async ({ topics }) => { noted.tokens.push(topics); return (await fetch('/token')).text(); };
    const rt = window.rt = new Realtime({ token, ...options });
    rt.onStatus((s) => noted.states.push({ ...s, at: performance.now() }));
    rt.addEventListener('refused', (e) => noted.refused.push(e.detail));
    window.follow = (topic, options) => {
      rt.on(topic, (event, about) => noted.events.push({ ...about, n: event.data?.n }), options);
      rt.onResync(topic, (about) => noted.resyncs.push(about), options);
    };
    topics.forEach((topic) => window.follow(topic));
  }, [options, topics]);
}
export const noted = (page) => page.evaluate(() => window.noted);
export const status = (page) => page.evaluate(() => ({ ...window.rt.status }));
export const becomes = (page, state, more = {}, ms = 15_000) => until(`the state is ${state} ${JSON.stringify(more)}`, async () => {
  const now = await status(page);
  if (now.state === state && Object.entries(more).every(([k, v]) => now[k] === v)) return now;
  throw new Error(JSON.stringify(now));
}, ms);
/** Publishes, and waits until the page has it. */
export async function arrives(page, node, topic = 'comments:42', ms = 30_000) {
  const n = Math.random();
  await node.publish(topic, { type: 'comment.created', data: { n } });
  await until(`an event on ${topic} arrives`, async () => (await noted(page)).events.some((e) => e.n === n), ms);
}
