// One editor's screen: the project overview, the comments and the bell of a CMS, kept current by Carillon.
//
// Worth reading for its order, which is the one for any page: subscribe, then load, then apply. An event only says that something
// changed; what changed is read from the CMS, by the same function that loaded it first.

const query = new URLSearchParams(location.search);
const me = query.get('editor') ?? 'anna';
const $ = (id) => document.getElementById(id);

// ---- a little furniture

/** Makes an element: h('b', {className: 'x'}, 'text', child). */
function h(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(properties.aria ?? {})) element.setAttribute(`aria-${name}`, value);
  element.append(...children.filter((c) => c !== null));
  return element;
}
const time = (iso) => new Date(iso).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto', style: 'narrow' });
function ago(iso) {
  const seconds = (new Date(iso).getTime() - Date.now()) / 1000;
  for (const [unit, size] of [['day', 86400], ['hour', 3600], ['minute', 60]]) if (-seconds >= size) return relative.format(Math.ceil(seconds / size), unit);
  return 'now';
}
const count = (n, noun) => `${n} ${noun}${n === 1 ? '' : 's'}`;
const when = (iso) => h('time', { dateTime: iso, title: new Date(iso).toLocaleString() }, ago(iso));
setInterval(() => { for (const t of document.querySelectorAll('time')) t.textContent = ago(t.dateTime); }, 20_000);

async function api(path, body) {
  const answer = await fetch(`api/${path}`, body ? { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) } : {});
  const result = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(result.detail ?? `The CMS answers ${answer.status}.`);
  return result;
}
function toast(text, kind = '') {
  const item = h('p', { className: `toast ${kind}` }, text);
  $('toasts').append(item);
  setTimeout(() => item.remove(), 4500);
}
/** An act of this editor: a write to the CMS, with the client id as origin, so that the echo of it is dropped here. */
async function act(path, body) {
  try {
    const result = await api(path, { editor: me, origin: rt.id, ...body });
    if (result.publish_error) toast(`Saved, but the others could not be told: ${result.publish_error}`, 'bad');
    return result;
  } catch (error) { toast(error.message, 'bad'); return null; }
}

const setup = await api('setup');
const editors = new Map(setup.editors.map((e) => [e.id, e]));
const editor = (id) => editors.get(id) ?? { id, name: id, initials: id.slice(0, 2).toUpperCase(), role: '', hue: 0 };
function avatar(id) {
  const { initials, hue, name } = editor(id);
  const element = h('span', { className: 'avatar small', title: name, aria: { hidden: 'true' } }, initials);
  element.style.setProperty('--hue', hue);
  return element;
}

// ---- the connection

const { Realtime } = await import(`${setup.realtime}/realtime.js`).catch((error) => {
  $('badge').dataset.state = 'off';
  $('badge-text').textContent = 'Off';
  $('notice').hidden = false;
  $('notice-text').textContent = `${setup.realtime}/realtime.js cannot be loaded: no live updates.`;
  throw error;
});
const rt = new Realtime({
  url: setup.realtime,
  token: async () => (await api('token', { editor: me, ttl: Number(query.get('ttl')) || 600 })).token,
  shared: query.get('shared') !== '0',
  ...(query.get('transports') && { transports: query.get('transports').split(',') }),
});

const NAMES = { websocket: 'WebSocket', sse: 'SSE', poll: 'long-poll' };
rt.onStatus(({ state, since, transport, node, reason }) => {
  $('badge').dataset.state = state;
  $('badge-text').textContent = {
    connecting: 'Connecting…',
    live: `Live · ${NAMES[transport]}`,
    stale: `Not live since ${time(since)}`,
    off: 'Off',
  }[state];
  $('badge').title = node ? `Node ${node}, since ${time(since)}` : '';
  $('notice').hidden = state === 'live' || state === 'connecting';
  $('notice-text').textContent = state === 'off'
    ? `Live updates are off${reason === 'disabled' ? ': they are switched off on the server' : ''}. What others change shows after a manual refresh.`
    : `Not live since ${time(since)}: what you see may be behind. It catches up by itself.`;
  document.title = `${state === 'live' ? '' : '⚠ '}${editor(me).name} · Carillon`;
});

// ---- what is shown, and how it is read: each view has one loader, which never runs twice at a time

const view = { project: 42, content: null };
const known = { versions: new Map(), comments: new Set(), notifications: new Set(), unread: 0 };

function loader(load) {
  let running = false, again = false;
  return async function reload() {
    if (running) { again = true; return; }
    running = true;
    do {
      again = false;
      try { await load(); } catch (error) { toast(error.message, 'bad'); }
    } while (again);
    running = false;
  };
}

const LABELS = { draft: 'Draft', in_review: 'In review', approved: 'Approved', published: 'Published', active: 'Active', on_hold: 'On hold', done: 'Done' };

const loadProjects = loader(async () => {
  const { projects } = await api('projects');
  $('projects').replaceChildren(...projects.map((p) => {
    const button = h('button', { type: 'button', className: 'project' },
      h('strong', { title: p.name }, p.name),
      h('span', { className: 'meta' }, `${count(p.items, 'item')}, ${count(p.comments, 'comment')}`), h('span', { className: `chip ${p.status}` }, LABELS[p.status]));
    button.dataset.project = p.id;
    if (p.id === view.project) button.setAttribute('aria-current', 'true');
    button.addEventListener('click', () => open(p.id));
    return button;
  }));
  const current = projects.find((p) => p.id === view.project);
  $('project-name').textContent = current.name;
  $('project-status').value = current.status;
});

const loadItems = loader(async () => {
  const { project, items } = await api(`projects/${view.project}/items`);
  if (project.id !== view.project) return;
  const focused = document.activeElement?.closest('#items tr')?.dataset.item;
  const control = document.activeElement?.dataset?.act;
  $('items').replaceChildren(...items.map((i) => {
    const name = h('button', { type: 'button', className: 'link', title: i.name }, i.name);
    name.addEventListener('click', () => detail(i.content));
    const move = h('select', { aria: { label: `Move ${i.name} to` } }, ...['draft', 'in_review', 'approved', 'published'].map((s) => h('option', { value: s, selected: s === i.status }, LABELS[s])));
    move.dataset.act = 'move';
    move.className = `chip ${i.status}`;
    move.addEventListener('change', async () => { if (await act(`projects/${view.project}/items/${i.id}/move`, { status: move.value })) mine(); });
    const approve = h('button', { type: 'button', className: 'small', disabled: i.status === 'approved' || i.status === 'published', aria: { label: `Approve ${i.name}` } }, 'Approve');
    approve.dataset.act = 'approve';
    approve.addEventListener('click', async () => { if (await act(`projects/${view.project}/items/${i.id}/approve`, {})) mine(); });
    const row = h('tr', {},
      h('td', { className: 'name' }, h('div', {}, name, h('span', { className: 'sub' }, `${i.type} · ${i.language.toUpperCase()}`))),
      h('td', { className: 'kind' }, i.type), h('td', { className: 'lang' }, i.language),
      h('td', { className: 'status' }, move),
      h('td', { className: 'changed' }, avatar(i.modified_by), h('span', { className: 'sr' }, editor(i.modified_by).name), when(i.modified)),
      h('td', { className: 'acts' }, approve));
    row.dataset.item = i.id;
    const before = known.versions.get(i.id);
    if (before !== undefined && before !== i.version) row.classList.add('fresh');
    known.versions.set(i.id, i.version);
    return row;
  }));
  if (focused) $('items').querySelector(`[data-item="${focused}"] ${control ? `[data-act="${control}"]` : 'button'}`)?.focus();
});

const loadComments = loader(async () => {
  const { project, comments } = await api(`projects/${view.project}/comments`);
  if (project !== view.project) return;
  const first = known.comments.size === 0;
  $('comments').replaceChildren(...comments.map((c) => {
    const entry = c.kind === 'activity'
      ? h('li', { className: 'entry activity' }, avatar(c.author), h('p', {}, h('strong', {}, editor(c.author).name), ` ${c.text} `, when(c.created)))
      : h('li', { className: 'entry' }, avatar(c.author), h('div', {}, h('p', { className: 'by' }, h('strong', {}, editor(c.author).name), ' ', when(c.created)), h('p', { className: 'said' }, ...mentions(c.text))));
    entry.dataset.comment = c.id;
    if (!first && !known.comments.has(c.id)) entry.classList.add('fresh');
    known.comments.add(c.id);
    return entry;
  }));
});
/** The text, with @editor marked. */
function mentions(text) {
  return text.split(/(@\w+)/).map((part) => (part[0] === '@' && editors.has(part.slice(1)) ? h('mark', {}, part) : part));
}

const loadNotifications = loader(async () => {
  const { unread, notifications } = await api(`notifications?editor=${me}`);
  const first = known.notifications.size === 0 && !known.loadedNotifications;
  known.loadedNotifications = true;
  $('unread').hidden = !unread;
  $('unread').textContent = unread;
  if (unread > known.unread && !first) { $('bell').classList.remove('ring'); void $('bell').offsetWidth; $('bell').classList.add('ring'); }
  known.unread = unread;
  $('bell').setAttribute('aria-label', `Notifications, ${unread || 'none'} unread`);
  $('read-all').disabled = !unread;
  $('notifications').replaceChildren(...notifications.map((n) => {
    const entry = h('li', { className: `entry ${n.read ? '' : 'unread'}` }, avatar(n.from), h('div', {}, h('p', {}, n.text), h('p', { className: 'meta' }, when(n.created))));
    if (!n.read) {
      const read = h('button', { type: 'button', className: 'small', aria: { label: `Mark as read: ${n.text}` } }, 'Read');
      read.addEventListener('click', async () => { if (await act('notifications/read', { id: n.id })) loadNotifications(); });
      entry.append(read);
    }
    entry.dataset.notification = n.id;
    if (!first && !known.notifications.has(n.id)) {
      $('announcer').append(h('p', {}, `New notification: ${n.text}`));
      toast(n.text, 'note');
    }
    known.notifications.add(n.id);
    return entry;
  }));
  if (!notifications.length) $('notifications').append(h('li', { className: 'entry empty' }, 'Nothing yet.'));
});

/** After an own act: the echo is dropped, so this page reads again by itself. */
function mine() { loadItems(); loadComments(); loadProjects(); }
function all() { loadProjects(); loadItems(); loadComments(); loadNotifications(); if (view.content) loadDetail(); }

// ---- the topics: one project at a time, the list of projects, the own notifications

let leave = new AbortController();
function open(project) {
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  view.project = project;
  known.comments.clear();
  known.versions.clear();
  for (const [topic, load] of [[`project-items:${project}`, loadItems], [`comments:${project}`, () => { loadComments(); loadProjects(); }]]) {
    rt.on(topic, load, { signal });
    rt.onResync(topic, load, { signal });
  }
  loadProjects();
  if (rt.status.state !== 'live') all();    // without a connection a page still shows what the CMS says
}
rt.on('projects', loadProjects);
rt.onResync('projects', loadProjects);
const own = Realtime.topic('notifications', me.toLowerCase());
rt.on(own, loadNotifications);
rt.onResync(own, loadNotifications);

// ---- one item's content, in a dialog

let leaveDetail = new AbortController();
let shown = null;
function fill(content) {
  shown = content;
  $('detail-heading').textContent = content.title;
  $('detail-title').value = content.title;
  $('detail-teaser').value = content.teaser;
  $('detail-meta').textContent = `${content.language}, version ${content.version}${content.published_version ? `, version ${content.published_version} is published` : ', not published'}, last changed by ${editor(content.modified_by).name}`;
  $('detail-notice').hidden = true;
}
const loadDetail = loader(async () => {
  if (!view.content) return;
  const content = await api(`content/${view.content}`);
  if (content.id !== view.content) return;
  const touched = shown && ($('detail-title').value !== shown.title || $('detail-teaser').value !== shown.teaser);
  if (!shown || !touched) {
    const changed = shown && shown.version !== content.version;
    fill(content);
    if (changed) $('detail-meta').classList.add('fresh');
  } else if (content.version !== shown.version) {
    $('detail-notice-text').textContent = `${editor(content.modified_by).name} saved version ${content.version} while you had this open.`;
    $('detail-notice').hidden = false;
  }
});
function detail(content) {
  leaveDetail.abort();
  leaveDetail = new AbortController();
  view.content = content;
  shown = null;
  rt.on(`content:${content}`, loadDetail, { signal: leaveDetail.signal });
  rt.onResync(`content:${content}`, loadDetail, { signal: leaveDetail.signal });
  loadDetail();
  $('detail').showModal();
}
$('detail').addEventListener('close', () => { leaveDetail.abort(); view.content = null; shown = null; });
$('detail-close').addEventListener('click', () => $('detail').close());
$('detail-theirs').addEventListener('click', () => { shown = null; loadDetail(); });
$('detail-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const result = await act(`content/${view.content}/save`, { title: $('detail-title').value, teaser: $('detail-teaser').value });
  if (result) { fill(result.content); loadItems(); $('detail').close(); }
});

// ---- acts

$('comment-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const text = $('comment').value.trim();
  if (text && await act(`projects/${view.project}/comments`, { text })) { $('comment').value = ''; loadComments(); loadProjects(); }
});
$('comment').addEventListener('keydown', (e) => { if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) $('comment-form').requestSubmit(); });
$('project-status').addEventListener('change', async () => { if (await act(`projects/${view.project}/status`, { status: $('project-status').value })) loadProjects(); });
$('read-all').addEventListener('click', async () => { if (await act('notifications/read', { all: true })) loadNotifications(); });
$('notify-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const to = $('notify-to').value;
  if (await act('notify', { to, text: $('notify-text').value })) { $('notify-text').value = ''; toast(`Sent to ${editor(to).name}.`); }
});
$('refresh').addEventListener('click', all);

// ---- breaking it

const switches = ['block-websocket', 'block-sse', 'offline', 'stale'];
function faults(drop = false) {
  rt.simulate({
    block: [...($('block-websocket').checked ? ['websocket'] : []), ...($('block-sse').checked ? ['sse'] : [])],
    offline: $('offline').checked, stale: $('stale').checked, drop,
  });
  $('break-button').classList.toggle('on', switches.some((id) => $(id).checked));
}
for (const id of switches) $(id).addEventListener('change', () => faults());
$('drop').addEventListener('click', () => faults(true));

// ---- the log, and an auditor that counts what should never happen

const audit = { events: 0, holes: 0, doubles: 0, resyncs: 0, at: new Map() };
function note({ topic, position }) {
  const [, where, seq] = position?.match(/^(.*-)(\d+)$/) ?? [];
  if (!where) return;
  audit.events++;
  const last = audit.at.get(topic);
  if (last?.where === where) {
    if (Number(seq) <= last.seq) audit.doubles++;
    else if (Number(seq) > last.seq + 1) audit.holes++;
  }
  audit.at.set(topic, { where, seq: Number(seq) });
}
function start(positions, over) {
  for (const [topic, position] of Object.entries(positions ?? {})) {
    const [, where, seq] = position.match(/^(.*-)(\d+)$/) ?? [];
    if (over || !audit.at.has(topic)) audit.at.set(topic, { where, seq: Number(seq) });
  }
}
rt.onMessage(({ direction, transport, time: at, message }) => {
  if (direction === 'in' && message.type === 'event') note(message);
  else if (message.type === 'resync') { audit.resyncs++; start(message.positions, true); }
  else if (message.type === 'subscribed') start(message.positions, true);
  else if (message.type === 'welcome') start(message.positions, false);
  Object.assign($('audit').dataset, { events: audit.events, holes: audit.holes, doubles: audit.doubles, resyncs: audit.resyncs });
  $('audit').textContent = `${count(audit.events, 'event')} · ${count(audit.holes, 'hole')} · ${count(audit.doubles, 'double')} · ${count(audit.resyncs, 'resync')}`;
  const ping = message.type === 'ping' || message.type === 'pong';
  const line = h('li', { className: `${direction} ${ping ? 'ping' : ''}` }, h('details', {},
    h('summary', {}, h('span', { className: 'at' }, time(at)), h('span', { className: 'way' }, direction === 'in' ? '←' : '→'), h('b', {}, message.event?.type ?? message.type), h('span', { className: 'what' }, message.topic ?? message.topics?.join(' ') ?? ''), h('span', { className: 'via' }, NAMES[transport])),
    h('pre', {}, JSON.stringify(message, null, 2))));
  $('messages').prepend(line);
  while ($('messages').children.length > 300) $('messages').lastChild.remove();
});
$('log-button').addEventListener('click', () => {
  $('log').hidden = !$('log').hidden;
  $('log-button').setAttribute('aria-expanded', String(!$('log').hidden));
});
$('log-clear').addEventListener('click', () => $('messages').replaceChildren());
$('log-pings').addEventListener('change', () => $('messages').classList.toggle('pings', $('log-pings').checked));

// ---- colours, and off we go

const paint = () => { document.documentElement.dataset.theme = localStorage.getItem('carillon-theme') ?? 'system'; };
addEventListener('storage', paint);
paint();
$('me-name').textContent = editor(me).name;
$('me-role').textContent = editor(me).role;
$('me-avatar').textContent = editor(me).initials;
document.documentElement.style.setProperty('--hue', editor(me).hue);
const other = setup.editors.find((e) => e.id !== me);
$('comment').placeholder = `Write a comment. @${other.id} notifies ${other.name.split(' ')[0]}.`;
$('notify-to').append(...setup.editors.filter((e) => e.id !== me).map((e) => h('option', { value: e.id }, e.name)));
open(Number(query.get('project')) || 42);
if (rt.status.state !== 'live') loadNotifications();
