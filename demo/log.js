// The raw messages of the connection, and an auditor that counts what should never happen: holes and doubles.
import { $, count, h, time } from './tools.js';

const KEPT = 300;
export const NAMES = { websocket: 'WebSocket', sse: 'SSE', poll: 'long-poll' };

const audit = { events: 0, holes: 0, doubles: 0, resyncs: 0, at: new Map() };
function place(position) {
  const [, where, seq] = position?.match(/^(.*-)(\d+)$/) ?? [];
  return where ? { where, seq: Number(seq) } : null;
}
function note({ topic, position }) {
  const here = place(position);
  if (!here) return;
  audit.events++;
  const last = audit.at.get(topic);
  if (last?.where === here.where) {
    if (here.seq <= last.seq) audit.doubles++;
    else if (here.seq > last.seq + 1) audit.holes++;
  }
  audit.at.set(topic, here);
}
function start(positions, over) {
  for (const [topic, position] of Object.entries(positions ?? {})) if (over || !audit.at.has(topic)) audit.at.set(topic, place(position));
}

function line({ direction, transport, time: at, message }) {
  const ping = message.type === 'ping' || message.type === 'pong';
  return h('li', { className: `${direction} ${ping ? 'ping' : ''}` }, h('details', {},
    h('summary', {}, h('span', { className: 'at' }, time(at)), h('span', { className: 'way' }, direction === 'in' ? '←' : '→'), h('b', {}, message.event?.type ?? message.type), h('span', { className: 'what' }, message.topic ?? message.topics?.join(' ') ?? ''), h('span', { className: 'via' }, NAMES[transport] ?? transport)),
    h('pre', {}, JSON.stringify(message, null, 2))));
}

/** Writes down every message of a client, from now on. */
export function keepLog(rt) {
  rt.onMessage((raw) => {
    const { direction, message } = raw;
    if (direction === 'in' && message.type === 'event') note(message);
    else if (message.type === 'resync') { audit.resyncs++; start(message.positions, true); }
    else if (message.type === 'subscribed') start(message.positions, true);
    else if (message.type === 'welcome') start(message.positions, false);
    Object.assign($('audit').dataset, { events: audit.events, holes: audit.holes, doubles: audit.doubles, resyncs: audit.resyncs });
    $('audit').textContent = `· ${count(audit.events, 'event')} · ${count(audit.holes, 'hole')} · ${count(audit.doubles, 'double')} · ${count(audit.resyncs, 'resync')}`;
    $('messages').prepend(line(raw));
    while ($('messages').children.length > KEPT) $('messages').lastChild.remove();
  });
  $('log-button').addEventListener('click', () => {
    $('log').hidden = !$('log').hidden;
    $('log-button').setAttribute('aria-expanded', String(!$('log').hidden));
  });
  $('log-clear').addEventListener('click', () => $('messages').replaceChildren());
  $('log-pings').addEventListener('change', () => $('messages').classList.toggle('pings', $('log-pings').checked));
}
