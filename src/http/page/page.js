// Opens with the last hour that the node remembers (/history), and goes on from there; /status says how things are now.
import { drawBusiest, drawMarks } from './marks.js';
import { drawNodes, isMemory } from './nodes.js';
import { axis, Plot, redraw } from './plot.js';
import { $, clock, element, listed, millis, perSecond, plural, put, short, span, sum } from './tools.js';

const LOOK = 2000;      // ms between two looks
const rate = (counts, bucket) => Object.fromEntries(Object.entries(counts).map(([name, n]) => [name, n / bucket.seconds]));
const plots = {
  sessions: new Plot('sessions', (b) => b.sessions, { kind: 'bands', least: 5 }),
  events: new Plot('events', (b) => rate(b.events, b), { kind: 'bands', format: perSecond, names: ['recorded', 'live'], empty: 'no events in this time' }),
  deliveries: new Plot('deliveries', (b) => ({ deliveries: b.deliveries / b.seconds }), { format: perSecond }),
  latency: new Plot('latency', (b) => b.latency_ms ?? { p50: null, p90: null, p99: null }, { format: millis, least: 0.1, names: ['p50', 'p90', 'p99'] }),
  probe: new Plot('probe', (b) => ({ probe: b.link_up && b.probe_ms > 0 ? b.probe_ms : null }), { format: millis, least: 0.5, names: ['probe'], down: true }),
  resyncs: new Plot('resyncs', (b) => b.resyncs, { kind: 'bars', least: 5, empty: 'none in this time' }),
};
let buckets = [];
let started = null;

/** Adds what is new: the last one that is known was still open when it was told. */
function remember(history) {
  if (history.started !== started) buckets = [];
  started = history.started;
  const from = history.buckets[0]?.from ?? Infinity;
  buckets = [...buckets.filter((b) => b.from < from), ...history.buckets].filter((b) => b.from >= history.now - history.kept_seconds * 1000 - 10_000);
}

function drawHistory(history, memory, now) {
  const seconds = Number(document.querySelector('#range input:checked').value);
  Object.assign(axis, { from: now - seconds * 1000, to: now });
  const shown = buckets.filter((b) => b.from + b.seconds * 1000 > axis.from && b.from < axis.to);
  if (axis.pointed) axis.pointed = shown.find((b) => b.from === axis.pointed.from) ?? null;
  for (const plot of Object.values(plots)) plot.show(shown);
  drawMarks(shown, memory);
  drawBusiest(history.busiest, shown);
  const oldest = buckets[0]?.from ?? now;
  put('remembered', oldest > axis.from + 15_000 ? `The node remembers since ${clock(oldest)}, when it started.` : 'Buckets of 10 s.');
  // The open bucket may be too young to say anything: together with the one before it.
  const two = buckets.slice(-2);
  const lately = (of) => two.reduce((all, b) => all + of(b), 0) / Math.max(1, two.reduce((all, b) => all + b.seconds, 0));
  $('events').replaceChildren(short(lately((b) => sum(b.events))), element('small', {}, ' /s'));
  $('deliveries').replaceChildren(short(lately((b) => b.deliveries)), element('small', {}, ' /s'));
  const p99 = two.findLast((b) => b.latency_ms)?.latency_ms.p99;
  $('latency').replaceChildren(p99 == null ? 'quiet' : millis(p99), ...(p99 == null ? [] : [element('small', {}, ' p99')]));
  const resyncs = {};
  for (const b of shown) for (const [reason, n] of Object.entries(b.resyncs)) resyncs[reason] = (resyncs[reason] ?? 0) + n;
  put('resyncs', short(sum(resyncs)));
}

/** The sentence below the name: what is wrong now, or that nothing is. */
function trouble(text, calm) {
  put('trouble', text || calm);
  $('trouble').classList.toggle('calm', !text);
}

/** Sources that are late, and why. */
function drawLate(sources) {
  const late = sources.filter((source) => source.late);
  const why = ({ source, since, vouched_seconds, oldest_ms }) => `${source} since ${clock(Date.parse(since))} (${oldest_ms > 10_000 ? `its oldest event waits for ${span(oldest_ms / 1000)}` : vouched_seconds < 0 ? `silent for ${span(-vouched_seconds)}` : 'it reports again'})`;
  $('late').hidden = !late.length;
  put('late', late.length ? `Changes made through these sources may be late: ${late.map(why).join(', ')}.` : '');
}

function drawNode(own) {
  const memory = isMemory(own);
  put('node', own.node);
  document.title = `${own.ready ? '' : '⚠ '}Carillon ${own.node}`;
  put('state', own.ready ? 'ready' : own.draining ? 'draining' : 'not ready');
  $('state').className = `badge ${own.ready ? 'good' : 'bad'}`;
  trouble(own.ready ? '' : own.trouble, memory ? 'Nothing is wrong now.' : `Nothing is wrong now: in step with Redis since ${clock(Date.parse(own.redis.since))}.`);
  drawLate(own.sources ?? []);
  put('sessions', short(own.sessions.total));
  put('sessions-note', `${plural(own.editors, 'editor')}, ${plural(own.topics, 'topic')} followed`);
  put('events-note', `${short(sum(own.events))} since the start, ${span(own.uptime_seconds)} ago`);
  put('deliveries-note', `${short(own.deliveries)} since the start, ${plural(own.outbox_overflows, 'outbox overflow')}`);
  put('latency-note', 'arrival to last write, where anything was delivered');
  put('resyncs-note', sum(own.resyncs) ? `since the start: ${listed(Object.fromEntries(Object.entries(own.resyncs).filter(([, n]) => n)))}` : 'none since the start');
  put('redis', memory ? 'memory' : own.redis.live ? 'live' : 'away');
  $('redis').className = `figure ${memory ? '' : own.redis.live ? 'good' : 'bad'}`;
  put('redis-note', memory ? 'no Redis: one node, and what it holds ends with it'
    : [own.redis.version && `version ${own.redis.version}`, `since ${clock(Date.parse(own.redis.since))}`, `link lost ${own.redis.link_losses === 1 ? 'once' : `${own.redis.link_losses} times`}`].filter(Boolean).join(', '));
  return memory;
}

async function look() {
  let last = null;
  try {
    const get = async (path) => (await fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(5000) })).json();
    const [status, history] = await Promise.all([get('status'), get(`history?since=${buckets.at(-1)?.from ?? 0}`)]);
    remember(history);
    last = { history, memory: drawNode(status.this), at: Date.now() };
    drawHistory(history, last.memory, history.now);
    drawNodes(status);
    put('when', `, last at ${clock(history.now)}`);
    document.body.classList.remove('stale');
  } catch {
    put('state', 'no answer');
    $('state').className = 'badge bad';
    trouble('This node does not answer. What stands below is what it last said.');
    document.body.classList.add('stale');
  }
  if (last) look.last = last;
  setTimeout(look, LOOK);
}

// Another range is drawn at once, from what is known.
$('range').addEventListener('change', () => { if (look.last) drawHistory(look.last.history, look.last.memory, look.last.history.now); });
addEventListener('resize', redraw);
look();
