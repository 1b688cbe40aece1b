// The frame around the demo: one to three editors side by side, each a page of its own (pane.html) with its own connection.
// On a phone they lie behind each other, and a switch says whose screen is seen.

const EDITORS = [['anna', 'Anna Lindqvist'], ['bilal', 'Bilal Haddad'], ['chiyo', 'Chiyo Tanaka']];
const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const narrow = matchMedia('(max-width: 760px)');

let count = Math.min(3, Math.max(1, Number(query.get('count')) || 2));
let whose = EDITORS.some(([id]) => id === query.get('editor')) ? query.get('editor') : 'anna';

function pane(id, name) {
  const frame = document.createElement('iframe');
  const own = new URLSearchParams(query);
  own.delete('count');
  own.set('editor', id);
  frame.src = `pane.html?${own}`;
  frame.title = `The screen of ${name}`;
  frame.dataset.editor = id;
  return frame;
}

/** As many screens as asked for; those that stay are not loaded again. On a phone the others are hidden, and live. */
function show() {
  const wanted = EDITORS.filter(([id], n) => n < count || (narrow.matches && id === whose));
  for (const frame of [...$('panes').children]) if (!narrow.matches && !wanted.some(([id]) => id === frame.dataset.editor)) frame.remove();
  for (const [id, name] of wanted) if (!$('panes').querySelector(`[data-editor="${id}"]`)) $('panes').append(pane(id, name));
  for (const frame of $('panes').children) frame.hidden = narrow.matches && frame.dataset.editor !== whose;
  for (const radio of document.querySelectorAll('#count input')) radio.checked = Number(radio.value) === count;
  for (const radio of document.querySelectorAll('#whose input')) radio.checked = radio.value === whose;
}
$('count').addEventListener('change', (event) => { count = Number(event.target.value); show(); });
$('whose').addEventListener('change', (event) => { whose = event.target.value; show(); });
narrow.addEventListener('change', show);
show();

// The tour: one step at a time in one line, so that it takes nothing away from the screens. On a phone it waits to be asked for.
const steps = [...document.querySelectorAll('#tour li')];
let step = 0;
function tour(open) {
  $('tour').hidden = !open;
  $('tour-button').setAttribute('aria-expanded', String(open));
  steps.forEach((li, n) => { li.hidden = n !== step; });
  $('tour-back').disabled = step === 0;
  $('tour-next').textContent = step === steps.length - 1 ? 'Done' : 'Next';
}
$('tour-button').addEventListener('click', () => tour($('tour').hidden));
$('tour-back').addEventListener('click', () => { step--; tour(true); });
$('tour-next').addEventListener('click', () => {
  const done = step === steps.length - 1;
  step = done ? 0 : step + 1;
  tour(!done);
  if (done) $('tour-button').focus();
});
// Whoever does what a step says has done with it.
addEventListener('message', ({ origin, data }) => {
  if (origin !== location.origin || $('tour').hidden || step === steps.length - 1) return;
  if (steps[step].dataset.did.split(', ').includes(data?.did)) { step++; tour(true); }
});
steps.forEach((li, n) => { li.value = n + 1; });
tour(!narrow.matches && query.get('tour') !== '0');

// Colours: the system's, or one of the two; the panes follow through the storage event.
const THEMES = ['system', 'light', 'dark'];
const LABELS = { system: 'as the system', light: 'light', dark: 'dark' };
function paint() {
  const theme = localStorage.getItem('carillon-theme') ?? 'system';
  document.documentElement.dataset.theme = theme;
  $('theme').setAttribute('aria-label', `Colours: ${LABELS[theme]}`);
  $('theme').textContent = { system: '◐ System', light: '☀ Light', dark: '☾ Dark' }[theme];
}
$('theme').addEventListener('click', () => {
  const theme = localStorage.getItem('carillon-theme') ?? 'system';
  localStorage.setItem('carillon-theme', THEMES[(THEMES.indexOf(theme) + 1) % 3]);
  paint();
});
paint();
