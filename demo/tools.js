// What every part of a pane needs: elements, times in words, the CMS, and loaders that never run twice at a time.

export const query = new URLSearchParams(location.search);
export const me = query.get('editor') ?? 'anna';
export const $ = (id) => document.getElementById(id);

/** Makes an element: h('b', {className: 'x'}, 'text', child). A child that is null is left out. */
export function h(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(properties.aria ?? {})) element.setAttribute(`aria-${name}`, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Shows entries that carry `data-<key>` anew. What had the focus, or was led to, keeps it. */
export function redraw(list, key, entries) {
  const active = document.activeElement;
  const focused = list.contains(active) ? active.closest(`[data-${key}]`) : null;
  const target = list.querySelector('.target');
  list.replaceChildren(...entries);
  const again = (old) => old && list.querySelector(`[data-${key}="${CSS.escape(old.dataset[key])}"]`);
  again(target)?.classList.add('target');
  const entry = again(focused);
  if (entry && focused === active) place(entry);
  else entry?.querySelector(active.dataset.act ? `[data-act="${active.dataset.act}"]` : 'button, a')?.focus({ preventScroll: true });
}
/** Puts the focus on something that is no control. */
export function place(element) {
  element.tabIndex = -1;
  element.focus({ preventScroll: true });
}

export const time = (iso) => new Date(iso).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
export const count = (n, noun) => `${n} ${noun}${n === 1 ? '' : 's'}`;

const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto', style: 'narrow' });
function ago(iso) {
  const seconds = (new Date(iso).getTime() - Date.now()) / 1000;
  for (const [unit, size] of [['day', 86400], ['hour', 3600], ['minute', 60]]) if (-seconds >= size) return relative.format(Math.ceil(seconds / size), unit);
  return 'now';
}
/** How long ago something was, kept true while it is shown. */
export const when = (iso) => h('time', { dateTime: iso, title: new Date(iso).toLocaleString([], { hourCycle: 'h23' }) }, ago(iso));
setInterval(() => { for (const t of document.querySelectorAll('time')) t.textContent = ago(t.dateTime); }, 20_000);

/** Asks the CMS; with a body it is a write. Throws what the CMS says is wrong. */
export async function api(path, body) {
  const answer = await fetch(`api/${path}`, body ? { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) } : {});
  const result = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(result.detail ?? `The CMS answers ${answer.status}.`);
  return result;
}

/** A function that reads a view. Asked again while it runs, it runs once more afterwards: the last answer is never an old one. */
export function loader(load, failed) {
  let running = false, again = false;
  return async function reload() {
    if (running) { again = true; return; }
    running = true;
    do {
      again = false;
      try { await load(); } catch (error) { failed(error); }
    } while (again);
    running = false;
  };
}
