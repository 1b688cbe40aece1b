// Short messages over the list of projects: at most two, gone after a while, and each leads to what it speaks of.
import { $, h } from './tools.js';

const SHOWN = 2;
const STAYS = 6000;      // ms; longer while somebody points at it or has it in focus

/** Shows a text. With `href` it is a link, and `go` is what a plain click on it does. */
export function toast(text, { kind = '', href, go } = {}) {
  const item = href ? h('a', { href, className: `toast ${kind}`, title: text }, h('span', {}, text)) : h('p', { className: `toast ${kind}`, title: text }, text);
  if (href) item.addEventListener('click', (event) => follow(event, () => { item.remove(); go(); }));
  let timer;
  const wait = () => { clearTimeout(timer); timer = setTimeout(() => item.remove(), STAYS); };
  for (const kind of ['pointerenter', 'focus']) item.addEventListener(kind, () => clearTimeout(timer));
  for (const kind of ['pointerleave', 'blur']) item.addEventListener(kind, wait);
  $('toasts').append(item);
  while ($('toasts').children.length > SHOWN) $('toasts').firstChild.remove();
  wait();
}

/** A plain click stays in this page; with a key held, or the middle button, the browser opens the link as it would any other. */
export function follow(event, go) {
  if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go();
}
