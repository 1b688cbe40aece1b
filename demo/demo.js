// The frame around the demo: two or three editors side by side, each a page of its own (pane.html) with its own connection.

const EDITORS = [['anna', 'Anna Lindqvist'], ['bilal', 'Bilal Haddad'], ['chiyo', 'Chiyo Tanaka']];
const panes = document.querySelector('#panes');
const query = new URLSearchParams(location.search);

/** As many panes as asked for; those that stay are not loaded again. */
function show(count) {
  const wanted = EDITORS.slice(0, count);
  for (const frame of [...panes.children]) if (!wanted.some(([id]) => id === frame.dataset.editor)) frame.remove();
  for (const [id, name] of wanted) {
    if (panes.querySelector(`[data-editor="${id}"]`)) continue;
    const frame = document.createElement('iframe');
    const own = new URLSearchParams(query);
    own.delete('count');
    own.set('editor', id);
    frame.src = `pane.html?${own}`;
    frame.title = `The screen of ${name}`;
    frame.dataset.editor = id;
    panes.append(frame);
  }
  panes.dataset.count = String(count);
}

const narrow = matchMedia('(max-width: 760px)').matches;
const first = Number(query.get('count')) || (narrow ? 1 : 2);
const radios = document.querySelectorAll('#count input');
for (const radio of radios) {
  radio.checked = Number(radio.value) === first;
  radio.addEventListener('change', () => show(Number(radio.value)));
}
show(Math.min(3, Math.max(1, first)));

const tour = document.querySelector('#tour');
const tourButton = document.querySelector('#tour-button');
tourButton.addEventListener('click', () => {
  tour.hidden = !tour.hidden;
  tourButton.setAttribute('aria-expanded', String(!tour.hidden));
});

// Colours: the system's, or one of the two; the panes follow through the storage event.
const THEMES = ['system', 'light', 'dark'];
const themeButton = document.querySelector('#theme');
const LABELS = { system: 'as the system', light: 'light', dark: 'dark' };
function paint() {
  const theme = localStorage.getItem('carillon-theme') ?? 'system';
  document.documentElement.dataset.theme = theme;
  themeButton.setAttribute('aria-label', `Colours: ${LABELS[theme]}`);
  themeButton.textContent = { system: '◐ System', light: '☀ Light', dark: '☾ Dark' }[theme];
}
themeButton.addEventListener('click', () => {
  const theme = localStorage.getItem('carillon-theme') ?? 'system';
  localStorage.setItem('carillon-theme', THEMES[(THEMES.indexOf(theme) + 1) % 3]);
  paint();
});
paint();
