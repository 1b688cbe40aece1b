// Draws /status and the latency histogram of /metrics. Rates and percentiles are of what came between two looks.
const LOOK = 2000;      // ms between two looks
const KEPT = 150;       // looks that are drawn: five minutes
const $ = (id) => document.getElementById(id);
const put = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };
const scaled = (n, unit) => `${n >= 100 || n % 1 === 0 ? n.toFixed(0) : n.toFixed(1)} ${unit}`;
const short = (n) => n >= 1e6 ? scaled(n / 1e6, 'M') : n >= 1e4 ? scaled(n / 1e3, 'k') : n >= 100 || Number.isInteger(n) ? n.toFixed(0) : n.toFixed(1);
const millis = (ms) => ms == null ? '–' : ms === 0 ? '0' : ms < 0.995 ? `${(ms * 1000).toFixed(0)} µs` : ms < 995 ? `${ms.toFixed(ms < 9.95 ? 1 : 0)} ms` : `${(ms / 1000).toFixed(1)} s`;
const plural = (n, what) => `${short(n)} ${what}${n === 1 ? '' : 's'}`;
const span = (s) => s < 120 ? `${s} s` : s < 7200 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const sum = (numbers) => Object.values(numbers).reduce((all, n) => all + n, 0);

/** An SVG element, or an HTML one. */
function element(kind, attributes = {}, text) {
  const svg = ['svg', 'path', 'line', 'rect'].includes(kind);
  const made = svg ? document.createElementNS('http://www.w3.org/2000/svg', kind) : document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** The least round number that is not below. */
function round(top) {
  const unit = 10 ** Math.floor(Math.log10(top));
  return [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10].find((n) => n * unit >= top * 0.999) * unit;
}

/** First and last index of each run of true. */
function runs(flags) {
  const found = [];
  flags.forEach((flag, i) => { if (flag) { if (i && flags[i - 1]) found.at(-1)[1] = i; else found.push([i, i]); } });
  return found;
}

/** A plot of the last five minutes. `values[name][i]` belongs to `times[i]`; null is a gap. Bands on each other, bars on each other, or lines. */
class Plot {
  times = [];
  down = [];
  values = new Map();
  pointed = null;

  constructor(name, { kind = 'lines', format = short, least = 1, empty = '', names = [] } = {}) {
    Object.assign(this, { kind, format, least, empty, place: $(`plot-${name}`), legend: $(`legend-${name}`) });
    for (const known of names) this.values.set(known, []);
    this.place.setAttribute('role', 'img');
    this.title = this.place.parentElement.querySelector('h3').textContent;
    const point = (event) => {
      const box = this.svg?.getBoundingClientRect();
      if (!box) return;
      const at = KEPT - 1 - Math.round((box.right - event.clientX) / box.width * (KEPT - 1)) - (KEPT - this.times.length);
      this.pointed = at >= 0 && at < this.times.length ? at : null;
      this.draw();
    };
    for (const kind of ['pointermove', 'pointerdown']) this.place.addEventListener(kind, point);
    for (const kind of ['pointerleave', 'pointercancel']) this.place.addEventListener(kind, () => { this.pointed = null; this.draw(); });
  }

  add(time, values, down = false) {
    for (const name of Object.keys(values)) if (!this.values.has(name)) this.values.set(name, this.times.map(() => 0));
    this.times.push(time);
    this.down.push(down);
    for (const [name, list] of this.values) list.push(values[name] ?? null);
    if (this.times.length > KEPT) for (const list of [this.times, this.down, ...this.values.values()]) list.shift();
    if (this.pointed !== null && this.times.length === KEPT) this.pointed = Math.max(0, this.pointed - 1);
    this.draw();
  }

  draw() {
    const names = [...this.values.keys()];
    const stack = this.times.map(() => 0);
    const layers = names.map((name) => this.values.get(name).map((value, i) => {
      if (this.kind === 'lines') return [0, value];
      const from = stack[i];
      stack[i] += value ?? 0;
      return [from, value === null ? null : stack[i]];
    }));
    const top = round(Math.max(this.least, ...layers.flat().map(([, to]) => to ?? 0)));
    const x = (i) => (KEPT - this.times.length + i) * 100 / (KEPT - 1);
    const y = (value) => (100 - value / top * 100).toFixed(2);
    this.svg = element('svg', { viewBox: '0 0 100 100', preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    const ticks = [0, 0.5, 1].map((part) => {
      this.svg.append(element('line', { class: part ? 'grid' : 'grid base', x1: 0, x2: 100, y1: y(top * part), y2: y(top * part) }));
      const tick = element('span', { class: 'tick' }, this.format(top * part));
      tick.style.top = `calc((100% - 1.15rem) * ${1 - part})`;
      return tick;
    });
    for (const [from, to] of runs(this.down)) this.svg.append(element('rect', { class: 'down', x: x(from - 0.5), width: x(to + 0.5) - x(from - 0.5), y: 0, height: 100 }));
    layers.forEach((layer, n) => (this.kind === 'bars' ? this.bars(layer, n, x, y) : this.layer(layer, n, names.length, x, y)));
    if (this.pointed !== null) this.svg.append(element('line', { class: 'cursor', x1: x(this.pointed), x2: x(this.pointed), y1: 0, y2: 100 }));
    const shown = this.pointed ?? this.times.length - 1;
    const times = [element('span', { class: 'time from' }, '5 min ago'), element('span', { class: 'time to' }, this.pointed === null ? 'now' : clock(this.times[shown]))];
    this.place.replaceChildren(this.svg, ...ticks, ...times);
    if (this.empty && !names.length) this.place.append(element('p', { class: 'empty' }, this.empty));
    // Bars are rare: what they come to together, unless one is pointed at.
    const value = (list) => this.kind === 'bars' && this.pointed === null ? list.reduce((all, n) => all + (n ?? 0), 0) : list[shown];
    const told = names.map((name) => [name, value(this.values.get(name))]);
    const text = (value) => value == null ? '–' : this.format(value);
    this.place.setAttribute('aria-label', `${this.title}: ${told.map(([name, value]) => `${name} ${text(value)}`).join(', ') || this.empty}`);
    this.legend.replaceChildren(...told.map(([name, value], n) => {
      const entry = element('li');
      entry.append(element('i', { class: `s${n % 8}` }), name, element('b', {}, text(value)));
      return entry;
    }));
  }

  /** Bars, each high enough to be seen. */
  bars(layer, n, x, y) {
    const width = 100 / (KEPT - 1);
    layer.forEach(([from, to], i) => {
      if (to === null || to === from) return;
      const height = Math.max(2.5, y(from) - y(to));
      this.svg.append(element('rect', { class: `area s${n % 8}`, x: x(i) - width, width: width * 1.2, y: y(from) - height, height }));
    });
  }

  /** A line, with a band below where they stand on each other or it is alone; interrupted where there is no value. */
  layer(layer, n, count, x, y) {
    for (const [from, to] of runs(layer.map(([, value]) => value !== null))) {
      const points = (side, list) => list.map((i) => `${x(i).toFixed(2)},${y(layer[i][side])}`).join('L');
      const run = Array.from({ length: to - from + 1 }, (_, i) => from + i);
      const upper = run.length > 1 ? points(1, run) : `${(x(from) - 0.3).toFixed(2)},${y(layer[from][1])}L${points(1, run)}`;
      const lower = run.length > 1 ? points(0, [...run].reverse()) : `${x(from).toFixed(2)},${y(layer[from][0])}L${(x(from) - 0.3).toFixed(2)},${y(layer[from][0])}`;
      if (this.kind === 'bands' || count === 1) this.svg.append(element('path', { class: `area s${n % 8} ${this.kind}`, d: `M${upper}L${lower}Z` }));
      this.svg.append(element('path', { class: `line s${n % 8}`, d: `M${upper}` }));
    }
  }
}

const plots = {
  sessions: new Plot('sessions', { kind: 'bands', least: 5 }),
  events: new Plot('events', { kind: 'bands' }),
  deliveries: new Plot('deliveries'),
  latency: new Plot('latency', { format: millis, least: 0.1, names: ['p50', 'p90', 'p99'] }),
  probe: new Plot('probe', { format: millis, least: 0.5 }),
  resyncs: new Plot('resyncs', { kind: 'bars', least: 5, empty: 'none in these five minutes' }),
};
let last = null;
let rates = new Map();

/** Cumulative counts by upper bound (seconds) of the delivery latency. */
function histogram(text) {
  const found = text.matchAll(/^carillon_delivery_latency_seconds_bucket\{le="([^"]+)"\} (\d+)/gm);
  return [...found].map(([, bound, count]) => [bound === '+Inf' ? Infinity : Number(bound), Number(count)]);
}

/** A percentile of what came between two looks, in ms: within its bucket as if spread evenly. */
function percentile(buckets, before, part) {
  const counts = buckets.map(([bound, count], i) => [bound, count - (before?.[i]?.[1] ?? 0)]);
  const wanted = part * (counts.at(-1)?.[1] ?? 0);
  if (!(wanted > 0)) return null;
  const at = counts.findIndex(([, count]) => count >= wanted);
  const [from, below] = at ? counts[at - 1] : [0, 0];
  const [to, count] = counts[at];
  return (Number.isFinite(to) ? from + (to - from) * (wanted - below) / (count - below) : from) * 1000;
}

function drawNode(own, buckets, now, time) {
  put('node', own.node);
  document.title = `${own.ready ? '' : '⚠ '}Carillon ${own.node}`;
  put('state', own.ready ? 'ready' : own.draining ? 'draining' : 'not ready');
  $('state').className = `badge ${own.ready ? 'good' : 'bad'}`;
  $('trouble').hidden = own.ready;
  put('trouble', own.ready ? '' : own.trouble);
  put('sessions', short(own.sessions.total));
  put('sessions-note', `${plural(own.editors, 'editor')}, ${plural(own.topics, 'topic')} followed`);
  plots.sessions.add(time, own.sessions.by_transport);
  if (last) {
    const seconds = (now - last.now) / 1000;
    const rate = (a, b) => Math.max(0, a - b) / seconds;
    const events = { recorded: rate(own.events.recorded, last.own.events.recorded), live: rate(own.events.live, last.own.events.live) };
    plots.events.add(time, events);
    put('events', short(sum(events)));
    const deliveries = rate(own.deliveries, last.own.deliveries);
    plots.deliveries.add(time, { deliveries });
    put('deliveries', short(deliveries));
    const told = Object.fromEntries([0.5, 0.9, 0.99].map((part) => [`p${part * 100}`, percentile(buckets, last.buckets, part)]));
    plots.latency.add(time, told);
    $('latency').replaceChildren(told.p99 == null ? 'quiet' : millis(told.p99), ...(told.p99 == null ? [] : [element('small', {}, ' p99')]));
    const news = Object.entries(own.resyncs).map(([reason, count]) => [reason, Math.max(0, count - (last.own.resyncs[reason] ?? 0))]);
    plots.resyncs.add(time, Object.fromEntries(news.filter(([reason, count]) => count > 0 || plots.resyncs.values.has(reason))));
  }
  put('events-note', `${short(sum(own.events))} since the start`);
  put('deliveries-note', `${short(own.deliveries)} since the start, ${plural(own.outbox_overflows, 'outbox overflow')}`);
  put('latency-note', `arrival to last write; p99 since the start ${millis(percentile(buckets, null, 0.99))}`);
  put('resyncs', short(sum(own.resyncs)));
  const reasons = Object.entries(own.resyncs).filter(([, n]) => n > 0).map(([reason, n]) => `${reason} ${short(n)}`);
  put('resyncs-note', reasons.length ? `since the start: ${reasons.join(', ')}` : 'none since the start');
  put('redis', own.redis.live ? 'live' : 'away');
  $('redis').className = `figure ${own.redis.live ? 'good' : 'bad'}`;
  const since = `since ${clock(Date.parse(own.redis.since))}`;
  put('redis-note', [own.redis.version && `version ${own.redis.version}`, since, `link lost ${own.redis.link_losses === 1 ? 'once' : `${own.redis.link_losses} times`}`].filter(Boolean).join(', '));
  plots.probe.add(time, { probe: own.redis.live ? own.redis.probe_ms : null }, !own.redis.live);
}

/** Deliveries and events per second of every node, from what it last said about itself and what it had said before. */
function rateOf(name, node) {
  const known = rates.get(name);
  const at = Date.parse(node.time);
  if (known && at <= known.at) return known;
  const seconds = known ? (at - known.at) / 1000 : 0;
  const rate = (now, before) => seconds > 0 ? Math.max(0, now - before) / seconds : null;
  const events = sum(node.events ?? {});
  const fresh = { at, events, deliveries: node.deliveries ?? 0, perSecond: rate(node.deliveries ?? 0, known?.deliveries), eventsPerSecond: rate(events, known?.events) };
  rates.set(name, fresh);
  return fresh;
}

function drawNodes(status) {
  $('nodes-trouble').hidden = !status.nodes_trouble;
  put('nodes-trouble', status.nodes_trouble ?? '');
  const body = element('tbody');
  const all = { sessions: 0, events: [], deliveries: [] };
  for (const [name, node] of Object.entries(status.nodes)) {
    const row = body.insertRow();
    if (name === status.this.node) row.className = 'own';
    const cell = (of, text, kind = '') => { const made = row.insertCell(); made.textContent = text; made.className = kind; if (of) made.dataset.of = of; };
    cell('', name);
    if (!node) { cell('State', 'unreadable', 'bad wide'); continue; }
    const { perSecond, eventsPerSecond } = rateOf(name, node);
    all.sessions += node.sessions?.total ?? 0;
    if (perSecond !== null) all.deliveries.push(perSecond);
    if (eventsPerSecond !== null) all.events.push(eventsPerSecond);
    cell('State', node.ready ? 'ready' : node.trouble ?? 'not ready', `${node.ready ? 'good' : 'bad'} ${node.ready ? '' : 'wide'}`);
    cell('Redis', node.redis?.live ? 'live' : 'away', node.redis?.live ? 'good' : 'bad');
    cell('Probe', millis(node.redis?.probe_ms), 'number');
    for (const [of, value] of [['Sessions', node.sessions?.total], ['Editors', node.editors], ['Topics', node.topics]]) cell(of, short(value ?? 0), 'number');
    cell('Deliveries / s', perSecond === null ? '–' : short(perSecond), 'number');
    cell('Up for', span(node.uptime_seconds ?? 0), 'number');
    cell('Version', node.version ?? '–');
  }
  $('nodes').tBodies[0].replaceWith(body);
  const total = (list) => list.length ? short(list.reduce((a, b) => a + b, 0)) : '–';
  put('all-nodes', String(Object.keys(status.nodes).length));
  put('all-sessions', short(all.sessions));
  // Every node gets every event that somebody there follows: the busiest one is nearest to what was published.
  put('all-events', all.events.length ? short(Math.max(...all.events)) : '–');
  put('all-deliveries', total(all.deliveries));
}

async function look() {
  const time = Date.now();
  try {
    const get = (path) => fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(5000) });
    const [status, metrics] = await Promise.all([get('status'), get('metrics')]);
    const [told, buckets, now] = [await status.json(), histogram(await metrics.text()), performance.now()];
    drawNode(told.this, buckets, now, time);
    drawNodes(told);
    last = { now, own: told.this, buckets };
    put('when', `, last at ${clock(time)}`);
    document.body.classList.remove('stale');
  } catch {
    put('state', 'no answer');
    $('state').className = 'badge bad';
    $('trouble').hidden = false;
    put('trouble', 'This node does not answer. What stands below is what it last said.');
    document.body.classList.add('stale');
    for (const plot of Object.values(plots)) plot.add(time, {});
  }
  setTimeout(look, LOOK);
}

look();
