//! The three ways to a node. Each is given a wire (see `Link.wire`) and returns `{send or null, close}`: what comes is
//! handed to `wire.message`, the end to `wire.down`, and nothing is asked that `wire.spend` has not granted.

import { TIMERS, endOf, endOfHttp, now, parse, sleep, wall, within } from './protocol.js';

/** Between the starts of two polls, ms: not more than three a second, whatever a server answers. */
const POLL_PACE = 400;
const POLL_PATIENCE = 35_000;

function openWebSocket(wire) {
  const socket = new WebSocket(wire.url.replace(/^http/, 'ws'));
  const send = (m) => { if (socket.readyState === 1) socket.send(JSON.stringify(m)); };
  socket.onopen = () => {
    const token = wire.token();
    send({ type: 'connect', client: wire.client, topics: wire.topics, ...(token && { token }), ...(wire.resume && { resume: wire.resume }) });
  };
  socket.onmessage = (e) => { wire.heard(); wire.message(parse(e.data)); };
  socket.onclose = (e) => wire.down(endOf(e.code));
  return { send, close: () => { socket.onopen = socket.onmessage = socket.onclose = null; socket.close(1000); } };
}

/** POST has room for all positions; GET is for nodes that do not know it yet, and for proxies that let no POST through. */
async function request(wire, path, signal, cursor) {
  const token = wire.token();
  const common = /** @type {RequestInit} */ ({ signal, cache: 'no-store', credentials: 'include' });
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const get = async () => {
    await wire.spend(signal);
    const query = new URLSearchParams({ topics: wire.topics.join(',') });
    if (cursor) query.set('cursor', cursor);
    else if (wire.resume) query.set('resume', JSON.stringify(wire.resume));
    return fetch(`${wire.url}/${path}?${query}`, { ...common, headers });
  };
  if (wire.older.until > now()) return get();
  await wire.spend(signal);
  const body = JSON.stringify({ topics: wire.topics, ...(cursor ? { cursor } : wire.resume && { resume: wire.resume }) });
  const answer = await fetch(`${wire.url}/${path}`, { ...common, method: 'POST', headers: { ...headers, 'Content-Type': 'application/json' }, body })
    .catch((error) => { if (signal.aborted || !wire.foreign) throw error; });    // from another origin: perhaps the preflight's doing
  if (answer && (![404, 405, 501].includes(answer.status) || await isSwitchedOff(answer))) return answer;
  const older = await get();
  if (older.ok) wire.older.until = now() + 60_000;
  return older;
}

/** The node's own word for a transport that it does not serve. */
const isSwitchedOff = async (answer) => /-disabled$/.test(parse(await answer.text()).code);

/** A way down only: requests, until it is closed. */
const requests = (body) => (wire) => {
  const abort = new AbortController();
  body(wire, abort.signal).catch(() => wire.down({}));
  return { send: null, close: () => abort.abort() };
};

/** By `fetch`, not EventSource: it sees status and heartbeats, and sends the token as a header. */
const openSse = requests(async (wire, signal) => {
  const answer = await request(wire, 'events', signal);
  if (!answer.ok || !answer.body || !/event-stream/.test(answer.headers.get('content-type'))) return wire.down(endOfHttp(answer));
  const reader = answer.body.getReader();
  const text = new TextDecoder();
  let rest = '', data = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return wire.down({});
    wire.heard();
    const lines = (rest + text.decode(value, { stream: true })).split('\n');
    rest = lines.pop();
    for (const line of lines.map((l) => l.trimEnd())) {
      if (line.startsWith('data:')) data += line.slice(5).trimStart();
      else if (!line && data) { const message = parse(data); data = ''; wire.message(message); }
    }
  }
});

const openPoll = requests(async (wire, signal) => {
  for (let cursor = '', failed = 0; ;) {
    const asked = now();
    let answer = /** @type {Response} */ (null);
    const ask = async () => { answer = await request(wire, 'poll', signal, cursor); return answer.ok && parse(await answer.text()); };
    const body = await within(ask(), POLL_PATIENCE).catch(() => null);
    if (signal.aborted) return;
    const took = now() - asked;
    if (body?.cursor) {
      failed = 0;
      ({ cursor } = body);
      wire.heard();
      if (Array.isArray(body.messages)) body.messages.forEach((m) => wire.message(Object(m)));
    // A proxy cuts idle requests, an answer gets lost: the same cursor asks again, if there still is a node.
    } else if (!cursor || answer?.status < 500 || (took < 5000 && failed++) || !await wire.reachable()) return wire.down(endOfHttp(answer));
    await sleep(Math.max(0, POLL_PACE - took));
    if (signal.aborted) return;
  }
});

const OPEN = { websocket: globalThis.WebSocket && openWebSocket, sse: openSse, poll: openPoll };    // Node.js has none before 22

/** What a link has of the world; tests have another one. */
export const WORLD = {
  stamp: () => [now(), wall()],
  /** ms since then, by the clock that shows more: one may be set back, the other stands still in sleep. */
  since: ([mono, set]) => Math.max(now() - mono, wall() - set),
  now, wall,
  ...TIMERS,
  /** An older node may have none: then everything is tried. */
  config: async (url, signal) => {
    const answer = await fetch(url, { cache: 'no-store', credentials: 'include', signal });
    if (answer.status >= 500) throw answer.status;
    return answer.ok ? parse(await answer.text()) : {};
  },
  open: OPEN,
};
