// What went wrong and when: one line of marks over all plots, the same in words, and who was refused and why.
import { axis, pointing, x } from './plot.js';
import { $, clock, element, listed, plural, put, short, span, sum } from './tools.js';

const TOLD = 8;       // lines in words; all of them are in the line of marks

/** Neighbouring buckets with the same kind of trouble are one trouble. */
function troubles(buckets, memory) {
  const found = [];
  const note = (kind, bucket, counts) => {
    const last = found.findLast((trouble) => trouble.kind === kind);
    const to = bucket.from + bucket.seconds * 1000;
    if (last && bucket.from - last.to < 1000) {
      last.to = to;
      for (const [name, n] of Object.entries(counts)) last.counts[name] = (last.counts[name] ?? 0) + n;
    } else found.push({ kind, from: bucket.from, to, counts: { ...counts } });
  };
  for (const bucket of buckets) {
    if (!memory && (!bucket.link_up || bucket.link_losses)) note('link', bucket, { lost: bucket.link_losses });
    if (sum(bucket.resyncs)) note('resyncs', bucket, bucket.resyncs);
    if (sum(bucket.refused)) note('refused', bucket, bucket.refused);
    if (bucket.overflows) note('overflows', bucket, { 'slow sessions': bucket.overflows });
  }
  return found;
}

const WORDS = {
  link: ({ counts, from, to }) => `Redis out of sight${counts.lost > 1 ? ` ${counts.lost} times` : ''}, for ${span((to - from) / 1000)} at most`,
  resyncs: ({ counts }) => `${plural(sum(counts), 'resync')}: ${listed(counts)}`,
  refused: ({ counts }) => `refused ${listed(counts)}`,
  overflows: ({ counts }) => `${plural(counts['slow sessions'], 'outbox overflow')}`,
};

let shown = [];
pointing($('marks'), () => shown);

export function drawMarks(buckets, memory) {
  shown = buckets;
  const all = troubles(buckets, memory);
  const svg = element('svg', { viewBox: '0 0 100 100', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, element('line', { class: 'grid base', x1: 0, x2: 100, y1: 50, y2: 50 }));
  for (const { kind, from, to } of all) {
    const row = ['link', 'resyncs', 'refused', 'overflows'].indexOf(kind);
    svg.append(element('rect', { class: `mark ${kind}`, x: x(from), width: Math.max(0.5, x(to) - x(from)), y: row * 25 + 3, height: 19 }));
  }
  $('marks').replaceChildren(svg);
  $('marks').setAttribute('aria-label', all.length ? `${plural(all.length, 'trouble')} in this time` : 'Nothing went wrong in this time');
  const lines = all.sort((a, b) => b.from - a.from).slice(0, TOLD).map((trouble) => element('li', {}, element('i', { class: `mark ${trouble.kind}` }), element('time', {}, clock(trouble.from)), ` ${WORDS[trouble.kind](trouble)}`));
  $('troubles').replaceChildren(...(lines.length ? lines : [element('li', { class: 'quiet' }, 'Nothing went wrong in this time.')]));
  put('troubles-more', all.length > TOLD ? `and ${plural(all.length - TOLD, 'earlier one')}` : '');
  drawRefusals(buckets);
}

/** Causes of refusals, with how many and the last time. */
function drawRefusals(buckets) {
  const causes = new Map();
  for (const { from, refused } of buckets) for (const [cause, n] of Object.entries(refused)) causes.set(cause, { n: (causes.get(cause)?.n ?? 0) + n, last: from });
  const rows = [...causes].sort((a, b) => b[1].last - a[1].last).map(([cause, { n, last }]) => [cause, short(n), `last at ${clock(last)}`]);
  table('refusals', rows, 'Nobody was refused in this time.');
}

/** The busiest topics (of the last hour, told by the node) and areas (of the time that is shown). */
export function drawBusiest(busiest, buckets) {
  table('busiest-topics', busiest.map(({ topic, events, over }) => [topic, `${over ? '≤ ' : ''}${short(events)}`]), 'No events in the last hour.');
  const areas = {};
  for (const bucket of buckets) for (const [area, n] of Object.entries(bucket.areas)) areas[area] = (areas[area] ?? 0) + n;
  table('busiest-areas', Object.entries(areas).sort((a, b) => b[1] - a[1]).slice(0, 10).map(([area, n]) => [area, short(n)]), 'No events in this time.');
}

function table(id, rows, nothing) {
  const body = element('tbody');
  for (const [name, ...rest] of rows) body.append(element('tr', {}, element('th', { scope: 'row' }, name), ...rest.map((text) => element('td', { class: 'number' }, text))));
  if (!rows.length) body.append(element('tr', {}, element('td', { class: 'quiet' }, nothing)));
  $(id).tBodies[0].replaceWith(body);
}
