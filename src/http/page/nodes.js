// The table of all nodes, and what they come to together. Rates are of what came between two looks.
import { $, element, millis, put, short, span, sum } from './tools.js';

const rates = new Map();

/** Deliveries and events per second of a node, from what it last said about itself and what it had said before. */
function rateOf(name, node) {
  const known = rates.get(name);
  const at = Date.parse(node.time);
  if (known && at <= known.at) return known;
  const seconds = known ? (at - known.at) / 1000 : 0;
  const rate = (now, before) => seconds > 0 ? Math.max(0, now - before) / seconds : null;
  const events = sum(node.events ?? {});
  const fresh = { at, events, deliveries: node.deliveries ?? 0, deliveriesRate: rate(node.deliveries ?? 0, known?.deliveries), eventsRate: rate(events, known?.events) };
  rates.set(name, fresh);
  return fresh;
}

export const isMemory = (node) => node.redis?.kind === 'memory';

export function drawNodes(status) {
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
    const { deliveriesRate, eventsRate } = rateOf(name, node);
    all.sessions += node.sessions?.total ?? 0;
    if (deliveriesRate !== null) all.deliveries.push(deliveriesRate);
    if (eventsRate !== null) all.events.push(eventsRate);
    cell('State', node.ready ? 'ready' : node.trouble ?? 'not ready', `${node.ready ? 'good' : 'bad'} ${node.ready ? '' : 'wide'}`);
    if (isMemory(node)) cell('Redis', 'none');
    else cell('Redis', node.redis?.live ? 'live' : 'away', node.redis?.live ? 'good' : 'bad');
    cell('Probe', isMemory(node) ? '–' : millis(node.redis?.probe_ms), 'number');
    for (const [of, value] of [['Sessions', node.sessions?.total], ['Editors', node.editors], ['Topics', node.topics]]) cell(of, short(value ?? 0), 'number');
    cell('Deliveries/s', deliveriesRate === null ? '–' : short(deliveriesRate), 'number');
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
