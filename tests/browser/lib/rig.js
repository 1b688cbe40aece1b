// What the tests run against: Redis, nodes, nginx, HAProxy, each on a free port of loopback, in a folder of its own, ended by its process id.
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync, openSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from './harness.js';

export const SECRET = 'browser-tests-secret-of-more-than-32-bytes';

/** Below the ports that the kernel gives to outgoing connections, so that a server can come back on it. */
export const freePort = () => new Promise((go) => {
  const port = randomInt(12_000, 32_000);
  const s = net.createServer().once('error', () => go(freePort())).listen(port, '127.0.0.1', () => s.close(() => go(port)));
});
const answers = (port) => new Promise((go) => { const s = net.connect(port, '127.0.0.1', () => { s.destroy(); go(true); }); s.on('error', () => go(false)); });

function folder(t) {
  const path = mkdtempSync(join(tmpdir(), 'carillon-browser-'));
  t.after(() => rmSync(path, { recursive: true, force: true, maxRetries: 3 }));
  return path;
}
function start(t, command, args, { env, log }) {
  const out = openSync(log, 'a');
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', out, out] });
  const ended = new Promise((go) => child.on('exit', (code) => go(code)));
  const stop = async (signal = 'SIGKILL') => { if (child.exitCode === null && child.signalCode === null) { child.kill(signal); await ended; } };
  t.after(async () => { child.kill('SIGCONT'); await stop(); });
  return { child, stop, log };
}

export async function redis(t, port) {
  const dir = folder(t);
  port ??= await freePort();
  const server = start(t, 'redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--dir', dir], { log: join(dir, 'log') });
  await until('redis answers', () => answers(port));
  return { ...server, port, url: `redis://127.0.0.1:${port}` };
}

/** A node; `settings` are environment names after CARILLON__. Without redis it has its own memory. */
export async function node(t, name, { redis, port, ...settings } = {}) {
  const dir = folder(t);
  const http = port ?? await freePort(), internal = await freePort();
  const env = {
    CARILLON__HTTP__LISTEN: `127.0.0.1:${http}`, CARILLON__INTERNAL__LISTEN: `127.0.0.1:${internal}`, CARILLON__NODE__NAME: name,
    CARILLON__AUTH__MODE: 'jwt', CARILLON__AUTH__SECRET: SECRET, CARILLON__DEMO__ENABLED: 'true', CARILLON__INTERNAL__PUBLISH_TOKEN: SECRET, CARILLON__REDIS__URL: redis?.url ?? '',
    ...Object.fromEntries(Object.entries(settings).map(([k, v]) => [`CARILLON__${k}`, String(v)])),
  };
  const server = start(t, process.env.CARILLON_BIN, ['serve'], { env, log: join(dir, 'log') });
  const self = {
    ...server, port: http, base: `http://127.0.0.1:${http}`, internal: `http://127.0.0.1:${internal}`,
    status: async () => (await fetch(`http://127.0.0.1:${internal}/status`)).json(),
    sessions: async () => (await self.status()).this.sessions,
    publish: (topic, event, live) => fetch(`http://127.0.0.1:${internal}/publish${live ? '?live=1' : ''}`, { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Bearer ${SECRET}` }, body: JSON.stringify({ topic, event }) }).then(async (answer) => { if (!answer.ok) throw new Error(`publish: ${await answer.text()}`); }),
    api: async (path, body) => (await fetch(`http://127.0.0.1:${http}/demo/api/${path}`, body && { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })).json(),
  };
  await until(`node ${name} is ready (its log: ${join(dir, 'log')})`, async () => {
    if (server.child.exitCode !== null) throw new Error(`it ended: ${readFileSync(join(dir, 'log'), 'utf8').slice(-600)}`);
    return (await fetch(`${self.internal}/readyz`)).ok;
  }, 15_000);
  return self;
}

/** `carillon dev`, as a newcomer starts it: what it prints, and the link in it. */
export async function dev(t) {
  const dir = folder(t);
  const server = start(t, process.env.CARILLON_BIN, ['dev', '--listen', '127.0.0.1:0', '--internal', '127.0.0.1:0'], { log: join(dir, 'log') });
  const printed = () => readFileSync(join(dir, 'log'), 'utf8');
  const link = await until('it prints a link to the demo', () => printed().match(/Open the demo +(http:\S+)/)?.[1], 15_000);
  await until('the link answers', async () => (await fetch(link)).ok);
  return { ...server, link };
}

/** nginx; `servers` is text of server blocks, `mend` replaces it while it runs. */
export async function nginx(t, servers) {
  const dir = folder(t), port = await freePort();
  const write = (text) => writeFileSync(join(dir, 'nginx.conf'), `daemon off; worker_processes 1; ${process.getuid() === 0 ? 'user root;' : ''} pid ${dir}/pid; error_log ${dir}/error.log;
    events { worker_connections 256; }
    http {
      access_log off; client_body_temp_path ${dir}/b; proxy_temp_path ${dir}/p; fastcgi_temp_path ${dir}/f; uwsgi_temp_path ${dir}/u; scgi_temp_path ${dir}/s;
      map $http_upgrade $upgrade { default upgrade; '' ''; }
      server { listen 127.0.0.1:${port}; proxy_http_version 1.1; ${text} }
    }`);
  write(servers);
  const server = start(t, 'nginx', ['-c', join(dir, 'nginx.conf'), '-p', dir], { log: join(dir, 'log') });
  await until('nginx answers', () => answers(port));
  return { ...server, port, base: `http://127.0.0.1:${port}`, mend: (text) => { write(text); server.child.kill('SIGHUP'); } };
}

export async function haproxy(t, text) {
  const dir = folder(t), port = await freePort();
  writeFileSync(join(dir, 'haproxy.cfg'), text.replaceAll('LISTEN', `127.0.0.1:${port}`));
  const server = start(t, 'haproxy', ['-f', join(dir, 'haproxy.cfg'), '-db'], { log: join(dir, 'log') });
  await until('haproxy answers', () => answers(port));
  return { ...server, port, base: `http://127.0.0.1:${port}` };
}
