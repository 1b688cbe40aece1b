// Draws /status and the latency histogram of /metrics. Rates are differences between two looks.
const LOOK = 2000;
const KEPT = 150;
const $ = (id) => document.getElementById(id);
const put = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };
const short = (n) => n >= 1e6 ? `${(n / 1e6).toFixed(1)} M` : n >= 1e4 ? `${(n / 1e3).toFixed(1)} k` : n >= 100 || Number.isInteger(n) ? n.toFixed(0) : n.toFixed(1);
const millis = (ms) => ms == null ? '–' : ms < 1 ? `${(ms * 1000).toFixed(0)} µs` : `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
const span = (s) => s < 120 ? `${s} s` : s < 7200 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
const series = { events: [], deliveries: [], latency: [], probe: [] };
let last = null;

function plot(name) {
  const values = series[name];
  const top = Math.max(...values.map((v) => v ?? 0), 1e-9);
  const at = (v, i) => `${(KEPT - values.length + i) * 100 / (KEPT - 1)},${(38 - (v ?? 0) / top * 36).toFixed(2)}`;
  const line = values.map(at).join('L');
  const svg = $(`plot-${name}`);
  svg.setAttribute('viewBox', '0 0 100 40');
  svg.setAttribute('preserveAspectRatio', 'none');
  const draw = (kind, d) => {
    let path = svg.querySelector(kind ? `.${kind}` : 'path:not([class])');
    if (!path) {
      path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
      if (kind) path.setAttribute('class', kind);
      svg.append(path);
    }
    path.setAttribute('d', d);
  };
  if (values.length < 2) return;
  draw('area', `M${at(0, 0)}L${line}L${at(0, values.length - 1)}Z`);
  draw('', `M${line}`);
}

function keep(name, value) {
  series[name].push(value);
  if (series[name].length > KEPT) series[name].shift();
  plot(name);
}

/** Cumulative counts by upper bound (seconds) of the delivery latency. */
function histogram(text) {
  const found = text.matchAll(/^carillon_delivery_latency_seconds_bucket\{le="([^"]+)"\} (\d+)/gm);
  return [...found].map(([, bound, count]) => [bound === '+Inf' ? Infinity : Number(bound), Number(count)]);
}

/** A percentile of what came between two looks, in ms; the upper bound of its bucket. */
function percentile(buckets, before, part) {
  const counts = buckets.map(([bound, count], i) => [bound, count - (before?.[i]?.[1] ?? 0)]);
  const total = counts.at(-1)?.[1] ?? 0;
  if (!total) return null;
  const bound = counts.find(([, count]) => count >= part * total)[0];
  return (Number.isFinite(bound) ? bound : 10) * 1000;
}

function row(body, cells) {
  const line = body.insertRow();
  for (const [text, kind] of cells) {
    const cell = line.insertCell();
    cell.textContent = text;
    if (kind) cell.className = kind;
  }
}

function draw(status, buckets, now) {
  const own = status.this;
  put('node', own.node);
  document.title = `${own.ready ? '' : '⚠ '}Carillon ${own.node}`;
  put('state', own.ready ? 'ready' : own.trouble);
  $('state').className = `badge ${own.ready ? 'good' : 'bad'}`;
  put('sessions', short(own.sessions.total));
  put('transports', Object.entries(own.sessions.by_transport).map(([k, n]) => `${k} ${n}`).join(' · ') + ` · ${own.editors} editors · ${own.topics} topics`);
  const events = own.events.recorded + own.events.live;
  if (last) {
    const seconds = (now - last.now) / 1000;
    const rate = (a, b) => Math.max(0, a - b) / seconds;
    keep('events', rate(events, last.events));
    keep('deliveries', rate(own.deliveries, last.deliveries));
    put('events', short(series.events.at(-1)));
    put('deliveries', short(series.deliveries.at(-1)));
    const p99 = percentile(buckets, last.buckets, 0.99);
    keep('latency', p99);
    put('latency', p99 == null ? 'quiet' : `≤ ${millis(p99)}`);
    const parts = [0.5, 0.9, 0.99].map((part) => `p${part * 100} ≤ ${millis(percentile(buckets, null, part))}`);
    put('percentiles', `since the start: ${parts.join(' · ')}`);
  }
  last = { now, events, deliveries: own.deliveries, buckets };
  put('redis', own.redis.live ? 'live' : 'away');
  $('redis').className = `figure ${own.redis.live ? 'good' : 'bad'}`;
  put('redis-note', [own.redis.version && `version ${own.redis.version}`, `probe ${millis(own.redis.probe_ms)}`, `since ${own.redis.since.slice(0, 19).replace('T', ' ')} UTC`, `${own.redis.link_losses} losses`].filter(Boolean).join(' · '));
  keep('probe', own.redis.probe_ms);
  put('resyncs', short(Object.values(own.resyncs).reduce((sum, n) => sum + n, 0)));
  $('reasons').replaceChildren();
  for (const [reason, count] of Object.entries(own.resyncs).filter(([, n]) => n > 0)) row($('reasons'), [[reason], [short(count)]]);
  $('nodes-trouble').hidden = !status.nodes_trouble;
  put('nodes-trouble', status.nodes_trouble ?? '');
  const body = $('nodes').tBodies[0];
  body.replaceChildren();
  for (const [name, node] of Object.entries(status.nodes)) {
    if (!node) { row(body, [[name], ['unreadable', 'bad']]); continue; }
    row(body, [[name], [node.ready ? 'ready' : node.trouble ?? 'not ready', node.ready ? 'good' : 'bad'], [short(node.sessions?.total ?? 0)], [short(node.editors ?? 0)], [short(node.topics ?? 0)],
      [node.redis?.live ? 'live' : 'away', node.redis?.live ? 'good' : 'bad'], [millis(node.redis?.probe_ms)], [span(node.uptime_seconds ?? 0)], [node.version ?? '–']]);
  }
}

async function look() {
  try {
    const get = (path) => fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(5000) });
    const [status, metrics] = await Promise.all([get('status'), get('metrics')]);
    draw(await status.json(), histogram(await metrics.text()), performance.now());
  } catch {
    put('state', 'this node does not answer');
    $('state').className = 'badge bad';
  }
  setTimeout(look, LOOK);
}

look();
