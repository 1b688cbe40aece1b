// One editor's screen: the project overview, the comments and the bell of a CMS, kept current by Carillon.
//
// Worth reading for its order, which is the one for any page: subscribe, then load, then apply. An event only says that something
// changed; what changed is read from the CMS, by the same function that loaded it first.
import { $, api, count, h, loader, me, place, query, redraw, time, when } from './tools.js';
import { follow, toast } from './toasts.js';
import { keepLog, NAMES } from './log.js';

/** Tells the frame around this screen what its editor has done: the tour goes on when that was its step. */
const did = (what) => parent.postMessage({ did: what }, location.origin);
const bad = (error) => toast(error.message, { kind: 'bad' });
/** An act of this editor: a write to the CMS, with the client id as origin, so that the echo of it is dropped here. */
async function act(path, body) {
  try {
    const result = await api(path, { editor: me, origin: rt.id, ...body });
    did(path.split('/').at(-1));
    if (result.publish_error) toast(`Saved, but the others could not be told: ${result.publish_error}`, { kind: 'bad' });
    return result;
  } catch (error) { bad(error); return null; }
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

/** What the one bar says: a word, and where the page may be behind a sentence, whose second half needs room. */
function say(state, word, sentence = '', half = '') {
  $('badge').dataset.state = state;
  $('badge-text').textContent = word;
  $('notice').hidden = !sentence;
  $('notice-text').replaceChildren(sentence, h('span', { className: 'wide' }, half), sentence && '.');
  $('notice').title = $('notice-text').textContent;
}
const { Realtime } = await import(`${setup.realtime}/realtime.js`).catch((error) => {
  say('off', 'Off', `${setup.realtime}/realtime.js cannot be loaded`, ': no live updates');
  throw error;
});
const rt = new Realtime({
  url: setup.realtime,
  token: async () => (await api('token', { editor: me, ttl: Number(query.get('ttl')) || 600 })).token,
  shared: query.get('shared') !== '0',
  ...(query.get('transports') && { transports: query.get('transports').split(',') }),
});

rt.onStatus(({ state, since, transport, node, reason, late }) => {
  $('badge').toggleAttribute('data-late', late.length > 0);
  if (state === 'live') say('live', 'Live', late.length ? `Changes made through ${late.map((l) => l.source).join(', ')} may be late` : '');
  else if (state === 'connecting') say('connecting', 'Connecting…');
  else if (state === 'stale') say('stale', `Not live since ${time(since)}`, 'May be behind', '; catches up by itself');
  else say('off', 'Off', reason === 'disabled' ? 'Live updates are switched off on the server' : 'Live updates are off', '. What others change shows after a manual refresh');
  // How it is connected is for whoever asks: on hover, and in the log.
  $('badge').dataset.transport = transport ? NAMES[transport] : '';
  $('badge').title = $('log-how').textContent = [transport && `By ${NAMES[transport]}`, node && `node ${node}`, `since ${time(since)}`, reason].filter(Boolean).join(', ');
  if (state !== 'live') $('caught-up').textContent = '';
  document.title = `${state === 'live' ? '' : '⚠ '}${editor(me).name} · Carillon`;
});

// ---- what is shown, and how it is read: each view has one loader, which never runs twice at a time

const view = { project: 42, content: null, target: null };
const known = { versions: new Map(), comments: new Set(), notifications: null };

const LABELS = { draft: 'Draft', in_review: 'In review', approved: 'Approved', published: 'Published', active: 'Active', on_hold: 'On hold', done: 'Done' };

/** What happened while this page was away and was replayed afterwards: these entries carry a mark. */
const replayed = new Set();
let missed = 0;
function note(event, about) {
  if (!about.replayed) return;
  const { comment, activity, items } = event.data ?? {};
  for (const id of [comment, activity, ...(items ?? []).map((item) => item.id)]) if (id) replayed.add(id);
  missed++;
  $('caught-up').textContent = `Caught up: ${count(missed, 'missed change')} replayed.`;
  clearTimeout(note.timer);
  note.timer = setTimeout(() => { missed = 0; $('caught-up').textContent = ''; }, 15_000);
}
const mark = (id) => (replayed.has(id) ? h('span', { className: 'replayed', title: 'Happened while this page was not live, and was replayed when it was back' }, 'replayed') : null);

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
  $('project-name').textContent = current?.name ?? `There is no project ${view.project}`;
  $('project-status').value = current?.status ?? '';
}, bad);

function row(i) {
  const name = h('button', { type: 'button', className: 'link', title: i.name }, i.name);
  name.addEventListener('click', () => detail(i.content));
  const move = h('select', { aria: { label: `Move ${i.name} to` } }, ...['draft', 'in_review', 'approved', 'published'].map((s) => h('option', { value: s, selected: s === i.status }, LABELS[s])));
  move.dataset.act = 'move';
  move.className = `chip ${i.status}`;
  move.addEventListener('change', async () => { if (await act(`projects/${view.project}/items/${i.id}/move`, { status: move.value })) mine(); });
  const approve = h('button', { type: 'button', className: 'small', disabled: i.status === 'approved' || i.status === 'published', aria: { label: `Approve ${i.name}` }, title: 'Approve' }, h('span', { className: 'tick' }, '✓'), h('span', { className: 'word' }, 'Approve'));
  approve.dataset.act = 'approve';
  approve.addEventListener('click', async () => { if (await act(`projects/${view.project}/items/${i.id}/approve`, {})) mine(); });
  const element = h('tr', {},
    h('td', { className: 'name' }, h('div', {}, name, h('span', { className: 'sub' }, `${i.type} · ${i.language.toUpperCase()}`), mark(i.id))),
    h('td', { className: 'kind' }, i.type), h('td', { className: 'lang' }, i.language),
    h('td', { className: 'status' }, move),
    h('td', { className: 'changed' }, avatar(i.modified_by), h('span', { className: 'sr' }, editor(i.modified_by).name), when(i.modified)),
    h('td', { className: 'acts' }, approve));
  element.dataset.item = i.id;
  const before = known.versions.get(i.id);
  if (before !== undefined && before !== i.version) element.classList.add('fresh');
  known.versions.set(i.id, i.version);
  return element;
}
const loadItems = loader(async () => {
  const { project, items } = await api(`projects/${view.project}/items`);
  if (project.id !== view.project) return;
  redraw($('items'), 'item', items.map(row));
  arrive();
}, bad);

const loadComments = loader(async () => {
  const { project, comments } = await api(`projects/${view.project}/comments`);
  if (project !== view.project) return;
  const first = known.comments.size === 0;
  redraw($('comments'), 'comment', comments.map((c) => {
    const by = h('strong', {}, editor(c.author).name);
    const entry = c.kind === 'activity'
      ? h('li', { className: 'entry activity' }, avatar(c.author), h('p', {}, by, ` ${c.text} `, when(c.created), ' ', mark(c.id)))
      : h('li', { className: 'entry' }, avatar(c.author), h('div', {}, h('p', { className: 'by' }, by, ' ', when(c.created), ' ', mark(c.id)), h('p', { className: 'said' }, ...mentions(c.text))));
    entry.dataset.comment = c.id;
    if (!first && !known.comments.has(c.id)) entry.classList.add('fresh');
    known.comments.add(c.id);
    return entry;
  }));
  arrive();
}, bad);
/** The text, with @editor marked. */
function mentions(text) {
  return text.split(/(@\w+)/).map((part) => (part[0] === '@' && editors.has(part.slice(1)) ? h('mark', {}, part) : part));
}

// ---- the bell: its number is that of the unread rows below it, and each row leads to what it speaks of

const address = (n) => `pane.html?${new URLSearchParams(Object.entries({ ...Object.fromEntries(query), editor: me, project: n.project ?? view.project, item: n.item ?? '', comment: n.comment ?? '' }).filter(([, value]) => value !== ''))}`;
/** Shows what a notification speaks of, and marks it as read. A note speaks of nothing: it is shown itself. */
async function lead(n) {
  const inbox = $('inbox');
  if (n.project === null && !inbox.matches(':popover-open')) inbox.showPopover();
  if (n.project !== null && inbox.matches(':popover-open')) inbox.hidePopover();
  go(n);
  if (!n.read && await act('notifications/read', { id: n.id })) loadNotifications();
}
function notification(n) {
  const link = h('a', { href: address(n) }, h('span', {}, n.text));
  link.addEventListener('click', (event) => follow(event, () => lead(n)));
  const entry = h('li', { className: `entry ${n.read ? '' : 'unread'}` }, avatar(n.from), h('div', {}, h('p', {}, link), h('p', { className: 'meta' }, when(n.created))));
  if (!n.read) {
    const read = h('button', { type: 'button', className: 'small', aria: { label: `Mark as read: ${n.text}` } }, 'Read');
    read.addEventListener('click', async () => { if (await act('notifications/read', { id: n.id })) loadNotifications(); });
    entry.append(read);
  }
  entry.dataset.notification = n.id;
  return entry;
}
const loadNotifications = loader(async () => {
  const { unread, notifications } = await api(`notifications?editor=${me}`);
  const news = known.notifications ? notifications.filter((n) => !n.read && !known.notifications.has(n.id)) : [];
  known.notifications = new Set(notifications.map((n) => n.id));
  $('unread').hidden = !unread;
  $('unread').textContent = unread;
  $('inbox-count').textContent = unread ? `${unread} unread` : 'all read';
  $('bell').setAttribute('aria-label', `Notifications, ${unread || 'none'} unread`);
  $('read-all').disabled = !unread;
  const groups = [notifications.filter((n) => !n.read), notifications.filter((n) => n.read)];
  redraw($('notifications'), 'notification', groups.flat().map(notification));
  if (!notifications.length) $('notifications').append(h('li', { className: 'entry empty' }, 'Nothing yet.'));
  if (news.length) { $('bell').classList.remove('ring'); void $('bell').offsetWidth; $('bell').classList.add('ring'); }
  for (const n of news.reverse()) {
    $('announcer').append(h('p', {}, `New notification: ${n.text}`));
    if (!$('inbox').matches(':popover-open')) toast(n.text, { href: address(n), go: () => lead(n) });
  }
}, bad);

/** Leads to an item or a comment, in another project too: there as soon as it is read. */
function go({ project, item, comment, id }) {
  const place = comment ? ['#comments', 'comment', comment] : item ? ['#items', 'item', item] : id ? ['#notifications', 'notification', id] : null;
  view.target = place && (project && !comment && !item ? '#overview' : `${place[0]} [data-${place[1]}="${CSS.escape(place[2])}"]`);
  if (project && project !== view.project) open(project);
  arrive();
}
function arrive() {
  const found = view.target && document.querySelector(view.target);
  if (!found) return;
  view.target = null;
  for (const other of document.querySelectorAll('.target')) other.classList.remove('target');
  found.classList.add('target');
  found.scrollIntoView({ block: 'nearest' });
  place(found);
}

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
    rt.on(topic, (event, about) => { note(event, about); load(); }, { signal });
    rt.onResync(topic, () => load(), { signal });
  }
  loadProjects();
  if (rt.status.state !== 'live') all();    // without a connection a page still shows what the CMS says
}
rt.on('projects', loadProjects);
rt.onResync('projects', loadProjects);
const own = Realtime.topic('notifications', me);
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
  $('detail-meta').textContent = `${content.language.toUpperCase()}, version ${content.version}${content.published_version ? `, version ${content.published_version} is published` : ', not published'}, last changed by ${editor(content.modified_by).name}`;
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
}, bad);
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
for (const id of switches) $(id).addEventListener('change', () => { faults(); did(`${id} ${$(id).checked ? 'on' : 'off'}`); });
$('drop').addEventListener('click', () => faults(true));

// ---- the log, colours, and off we go

keepLog(rt);
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
go({ project: view.project, item: query.get('item'), comment: query.get('comment') });
if (rt.status.state !== 'live') loadNotifications();
