// A small node for the client's unit tests: it speaks the public contract on all three transports, keeps a log per topic,
// and can be told to misbehave. It is no reference: the browser tests run against real nodes.
import http from 'node:http';
import { readFile } from 'node:fs/promises';
import { WebSocketServer } from 'ws';

const b64 = (o) => Buffer.from(JSON.stringify(o)).toString('base64url');
/** A token that names a user; the fake node does not check signatures. */
export const mint = (sub, seconds = 600) => `${b64({ alg: 'none' })}.${b64({ sub, iat: Math.floor(Date.now() / 1000), exp: Date.now() / 1000 + seconds })}.x`;
const claims = (token) => { try { return JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString()); } catch { return null; } };
const types = { js: 'text/javascript; charset=utf-8', html: 'text/html; charset=utf-8', css: 'text/css; charset=utf-8', json: 'application/json', svg: 'image/svg+xml', ts: 'text/plain; charset=utf-8' };

/** What is asked for, in the body or in the address. */
async function wishOf(req, url) {
  if (req.method === 'POST') {
    let body = '';
    for await (const chunk of req) body += chunk;
    try { return { topics: [], ...JSON.parse(body) }; } catch { return { topics: [] }; }
  }
  const resume = url.searchParams.get('resume');
  return { topics: (url.searchParams.get('topics') ?? '').split(',').filter(Boolean), cursor: url.searchParams.get('cursor'), resume: resume && JSON.parse(resume) };
}

export class FakeNode {
  constructor(options = {}) {
    Object.assign(this, { name: 'fake-1', lineage: 'L1', epoch: Date.now(), heartbeat: 25, live: true, config: {}, knowsResume: true, posts: true, wsMode: 'ok', sseMode: 'ok', pollMode: 'ok', configMode: 'ok', expiresIn: true, handler: null, most: Infinity }, options);
    this.logs = new Map();
    this.sessions = new Set();
    this.counts = { websocket: 0, sse: 0, poll: 0, config: 0, sockets: 0 };
    this.connects = [];
    this.sent = [];
    this.server = http.createServer((req, res) => this.serve(req, res).catch((e) => { res.writeHead(500).end(String(e)); }));
    this.wss = new WebSocketServer({ noServer: true });
    this.sockets = new Set();
    this.server.on('connection', (s) => { this.counts.sockets++; this.sockets.add(s); s.on('close', () => this.sockets.delete(s)); });
    this.server.on('upgrade', (req, socket, head) => this.upgrade(req, socket, head));
  }

  async listen(port = 0) {
    await new Promise((go) => this.server.listen(port, '127.0.0.1', go));
    this.port = this.server.address().port;
    this.url = `http://127.0.0.1:${this.port}/realtime`;
    return this;
  }

  /** Cuts every connection and stops listening, as a kill does. */
  async kill() {
    for (const s of this.sockets) s.destroy();
    await new Promise((go) => this.server.close(go));
  }

  /** ms: the last proof; `provenAt` holds it still. */
  proof() { return this.provenAt ?? Date.now(); }

  drop() { for (const s of this.sockets) s.destroy(); }

  publish(topic, event) {
    const log = this.logs.get(topic) ?? [];
    this.logs.set(topic, log);
    const message = { type: 'event', topic, position: `${this.lineage}.${this.epoch}-${log.length + 1}`, event };
    log.push(message);
    this.at = this.proof();
    for (const s of this.sessions) if (s.follows(topic)) s.say({ ...message, at: this.at });
    return message.position;
  }

  live_(topic, event) { for (const s of this.sessions) if (s.follows(topic)) s.say({ type: 'event', topic, at: Date.now(), event }); }
  tell(message) { for (const s of this.sessions) s.say({ at: Date.now(), ...message }); }
  head(topic) { return `${this.lineage}.${this.epoch}-${this.logs.get(topic)?.length ?? 0}`; }

  upgrade(req, socket, head) {
    this.counts.websocket++;
    if (this.wsMode === '502') return socket.end('HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n');
    if (this.wsMode === '200') return socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi');
    if (this.wsMode === 'hang') return;
    this.wss.handleUpgrade(req, socket, head, (ws) => {
      if (this.wsMode === 'mute') return;
      const s = this.session('websocket', (m) => ws.send(JSON.stringify(m)));
      ws.on('message', (data) => {
        if (data.length > this.most) { s.say({ type: 'closing', code: 1009, reason: 'test', reconnect_after_ms: 10 }); return ws.close(1009); }
        const m = JSON.parse(data); this.sent.push(m); s.hear(m, (code, after) => { s.say({ type: 'closing', code, reason: 'test', ...(after && { reconnect_after_ms: after }) }); ws.close(code); }); });
      ws.on('close', () => this.sessions.delete(s));
      s.cut = (code) => (code ? ws.close(code) : ws.terminate());
    });
  }

  session(kind, say) {
    const node = this;
    const s = {
      kind, say, topics: new Set(), user: null,
      follows: (t) => s.topics.has(t) || [...s.topics].some((own) => own.split(':')[0] === t || own === `${t.split(':')[0]}:*`),
      follow(topics, resume) {
        const positions = {}, refused = [], replay = [], owed = [];
        for (const topic of topics) {
          if (topic.startsWith('secret')) { refused.push({ topic, code: 'forbidden' }); continue; }
          s.topics.add(topic);
          for (const t of topic.includes(':') && !topic.endsWith(':*') ? [topic, topic.split(':')[0]] : [topic]) {
            const held = node.knowsResume && resume?.positions?.[t];
            if (t.endsWith(':*')) { if (resume) owed.push(t); continue; }
            if (held) {
              const [, lineage, seq] = held.match(/^(.*)\.\d+-(\d+)$/);
              if (lineage !== node.lineage) { owed.push(t); continue; }
              positions[t] = held;
              replay.push(...(node.logs.get(t) ?? []).slice(Number(seq)));
            } else if (resume && node.knowsResume) owed.push(t);
            else positions[t] = node.head(t);
          }
        }
        return () => ({ positions, refused, after: () => {
          if (owed.length) s.say({ type: 'resync', topics: owed, reason: node.lineage === 'L1' ? 'no-position' : 'redis-changed', spread_ms: 50, at: Date.now(), positions: Object.fromEntries(owed.filter((t) => !t.endsWith('*')).map((t) => [t, node.head(t)])) });
          for (const m of replay) s.say({ ...m, at: resume.at ?? 0 });
        } });
      },
      welcome(token, topics, resume) {
        const who = token ? claims(token) : { sub: 'anonymous', exp: Infinity };
        if (!who || who.exp < Date.now() / 1000) return false;
        s.user = who.sub;
        node.connects.push({ kind, user: who.sub, topics, resume });
        const { positions, refused, after } = s.follow(topics, resume)();
        node.sessions.add(s);
        s.say({ type: 'welcome', session: 's', node: node.name, user: who.sub, heartbeat: node.heartbeat, ...(token && node.expiresIn && { expires_in: Math.round(who.exp - Date.now() / 1000) }), at: node.proof(), positions: node.live ? positions : {}, refused, live: node.live });
        after();
        return true;
      },
      hear(m, close) {
        s.close = close;
        if (m.type === 'connect') { if (!s.welcome(m.token, m.topics ?? [], m.resume)) close(4401); }
        else if (m.type === 'subscribe') { if (node.subscribes === false) return; const { positions, refused, after } = s.follow(m.topics, m.resume)(); s.say({ type: 'subscribed', at: node.proof(), positions, refused }); after(); }
        else if (m.type === 'unsubscribe') {
          for (const t of m.topics) s.topics.delete(t);
          // With the last key of an area, the area-wide topic ends too.
          const areas = [...new Set(m.topics.map((t) => t.split(':')[0]))].filter((area) => ![...s.topics].some((t) => t.split(':')[0] === area));
          s.say({ type: 'unsubscribed', topics: [...new Set([...m.topics, ...areas])] });
        }
        else if (m.type === 'ping') { if (node.pongs !== false) s.say({ type: 'pong', at: node.proof() }); }
        else if (m.type === 'token') s.say({ type: 'token-accepted', expires_in: Math.round(claims(m.token).exp - Date.now() / 1000) });
        else s.say({ type: 'error', code: 'unknown-type', detail: m.type });
      },
    };
    return s;
  }

  async serve(req, res) {
    const url = new URL(req.url, 'http://x');
    if (req.headers.origin) { res.setHeader('Access-Control-Allow-Origin', req.headers.origin); res.setHeader('Access-Control-Allow-Credentials', 'true'); res.setHeader('Access-Control-Allow-Headers', 'authorization, content-type'); }
    if (req.method === 'OPTIONS') return res.writeHead(204).end();
    const token = req.headers.authorization?.slice(7) ?? url.searchParams.get('token');
    if (req.method === 'POST' && /events|poll/.test(url.pathname) && !this.posts) return res.writeHead(405, { 'content-type': 'application/problem+json' }).end('{"code":"method-not-allowed"}');
    const wish = await wishOf(req, url);
    const { topics, resume: asked } = wish;
    switch (url.pathname) {
      case '/realtime/config':
        this.counts.config++;
        if (this.configMode !== 'ok') return res.writeHead(Number(this.configMode)).end();
        return res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ websocket: true, sse: true, poll: true, heartbeat: this.heartbeat, version: 'fake', ...this.config }));
      case '/realtime/events': {
        this.counts.sse++;
        if (this.sseMode === 'hang') return;
        if (this.sseMode === 'forbidden') return res.writeHead(403, { 'content-type': 'application/problem+json' }).end('{}');
        if (this.sseMode === 'busy') return res.writeHead(503, { 'retry-after': '1' }).end();
        if (this.sseMode !== 'ok') return res.writeHead(Number(this.sseMode)).end('no');
        if (token && !(claims(token)?.exp > Date.now() / 1000)) return res.writeHead(401).end();
        res.writeHead(200, { 'content-type': 'text/event-stream' }).write(': hello\n\n');
        const s = this.session('sse', (m) => res.write(`event: ${m.type}\nid: c1\ndata: ${JSON.stringify(m)}\n\n`));
        s.cut = () => res.destroy();
        s.close = (code, after) => { s.say({ type: 'closing', code, reason: 'test', ...(after && { reconnect_after_ms: after }) }); res.end(); };
        res.on('close', () => this.sessions.delete(s));
        s.welcome(token, topics, asked);
        return;
      }
      case '/realtime/poll': {
        this.counts.poll++;
        if (this.pollMode === 'hang') return;
        const cut = this.pollMode === 'cut';    // after 5.1 s of silence
        if (this.pollMode !== 'ok' && !cut) return res.writeHead(Number(this.pollMode)).end('no');
        if (token && !(claims(token)?.exp > Date.now() / 1000)) return res.writeHead(401).end();
        const { cursor } = wish;
        const out = [];
        let flush = () => {};
        const s = this.session('poll', (m) => { out.push(m); flush(); });
        if (!cursor) s.welcome(token, topics, asked);
        else { s.follow(topics, JSON.parse(Buffer.from(cursor, 'base64url').toString()))().after(); this.sessions.add(s); }
        const held = cursor ? JSON.parse(Buffer.from(cursor, 'base64url').toString()).positions : {};
        await new Promise((go) => { if (out.length) go(); else { flush = () => setTimeout(go, 5); setTimeout(go, cut ? 5100 : 25_000).unref(); res.on('close', go); } });
        this.sessions.delete(s);
        if (cut && !out.length) return res.writeHead(504).end();
        for (const m of out) { Object.assign(held, m.positions); if (m.position) held[m.topic] = m.position; }
        return res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ cursor: b64({ at: Date.now(), positions: held }), messages: out }));
      }
      case '/realtime': return res.writeHead(426).end('upgrade-missing');
      case '/realtime/realtime.js': return res.writeHead(200, { 'content-type': types.js }).end(await readFile(new URL('../realtime.js', import.meta.url)));
    }
    if (this.handler && await this.handler(req, res, url)) return;
    res.writeHead(404).end();
  }
}

/** Waits for a condition with a deadline, and says what was awaited. */
export async function until(what, test, ms = 30_000) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await test();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((go) => setTimeout(go, 10));
  }
}
