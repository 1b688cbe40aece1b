// Numbers and times in words, one way for the whole page, and elements.
export const $ = (id) => document.getElementById(id);
export const put = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };
const scaled = (n, unit) => `${n >= 100 || n % 1 === 0 ? n.toFixed(0) : n.toFixed(1)} ${unit}`;
export const short = (n) => n >= 1e6 ? scaled(n / 1e6, 'M') : n >= 1e4 ? scaled(n / 1e3, 'k') : n >= 100 || Number.isInteger(n) ? n.toFixed(0) : n.toFixed(1);
export const perSecond = (n) => `${short(n)}/s`;
export const millis = (ms) => ms == null ? '–' : ms === 0 ? '0' : ms < 0.995 ? `${(ms * 1000).toFixed(0)} µs` : ms < 995 ? `${ms.toFixed(ms < 9.95 ? 1 : 0)} ms` : `${(ms / 1000).toFixed(1)} s`;
export const plural = (n, what) => `${short(n)} ${what}${n === 1 ? '' : what.endsWith('s') ? 'es' : 's'}`;
export const span = (s) => s < 120 ? `${Math.round(s)} s` : s < 7200 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
/** Twenty-four hours, everywhere on the page. */
export const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
export const sum = (numbers) => Object.values(numbers).reduce((all, n) => all + n, 0);
/** Names and how many, most first: "gap 5, slow 2". */
export const listed = (counts) => Object.entries(counts).sort((a, b) => b[1] - a[1]).map(([name, n]) => `${name} ${short(n)}`).join(', ');

/** An SVG element, or an HTML one. */
export function element(kind, attributes = {}, ...content) {
  const svg = ['svg', 'path', 'line', 'rect'].includes(kind);
  const made = svg ? document.createElementNS('http://www.w3.org/2000/svg', kind) : document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...content);
  return made;
}
