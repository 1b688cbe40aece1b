// Plots over one time axis. What is pointed at in one of them is told by all.
import { $, clock, element, short } from './tools.js';

/** The time that is shown, ms since 1970, and the bucket that is pointed at. */
export const axis = { from: 0, to: 1, pointed: null };
const drawn = [];
export const redraw = () => { for (const plot of drawn) plot.draw(); };
export const x = (time) => (time - axis.from) * 100 / (axis.to - axis.from);

/** Follows the pointer over `place`; `buckets()` are what can be pointed at. */
export function pointing(place, buckets) {
  const point = (event) => {
    const box = (place.querySelector('svg') ?? place).getBoundingClientRect();
    const at = axis.from + (event.clientX - box.left) / box.width * (axis.to - axis.from);
    axis.pointed = buckets().find((b) => at >= b.from && at < b.from + b.seconds * 1000) ?? null;
    redraw();
  };
  for (const kind of ['pointermove', 'pointerdown']) place.addEventListener(kind, point);
  for (const kind of ['pointerleave', 'pointercancel']) place.addEventListener(kind, () => { axis.pointed = null; redraw(); });
}

/** The least round number that is not below. */
function round(top) {
  const unit = 10 ** Math.floor(Math.log10(top));
  return [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10].find((n) => n * unit >= top * 0.999) * unit;
}

/** First and last index of each run of true. */
function runs(flags) {
  const found = [];
  flags.forEach((flag, i) => { if (flag) { if (i && flags[i - 1]) found.at(-1)[1] = i; else found.push([i, i]); } });
  return found;
}

/** A plot of the shown time. `of(bucket)` gives the values by name; null is a gap. Bands on each other, bars on each other, or lines. */
export class Plot {
  buckets = [];

  constructor(name, of, { kind = 'lines', format = short, least = 1, empty = '', names = [], down = false } = {}) {
    Object.assign(this, { of, kind, format, least, empty, names, down, place: $(`plot-${name}`), legend: $(`legend-${name}`) });
    this.place.setAttribute('role', 'img');
    this.title = this.place.parentElement.querySelector('h3').textContent;
    pointing(this.place, () => this.buckets);
    drawn.push(this);
  }

  show(buckets) {
    this.buckets = buckets;
    this.values = buckets.map(this.of);
    for (const values of this.values) for (const name of Object.keys(values)) if (!this.names.includes(name)) this.names.push(name);
    this.draw();
  }

  draw() {
    if (!this.values) return;
    // A name that counts nothing in this time has no place in the plot: it would only be painted over the others.
    const names = this.names.filter((name) => this.kind === 'lines' || this.values.some((values) => values[name] > 0));
    const stack = this.values.map(() => 0);
    const layers = names.map((name) => this.values.map((values, i) => {
      const value = values[name] === undefined ? (this.kind === 'lines' ? null : 0) : values[name];
      if (this.kind === 'lines') return [0, value];
      const from = stack[i];
      stack[i] += value ?? 0;
      return [from, value === null ? null : stack[i]];
    }));
    const top = round(Math.max(this.least, ...layers.flat().map(([, to]) => to ?? 0)));
    const y = (value) => (100 - value / top * 100).toFixed(2);
    const svg = element('svg', { viewBox: '0 0 100 100', preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    const ticks = [0, 0.5, 1].map((part) => {
      svg.append(element('line', { class: part ? 'grid' : 'grid base', x1: 0, x2: 100, y1: y(top * part), y2: y(top * part) }));
      const tick = element('span', { class: 'tick' }, this.format(top * part));
      tick.style.top = `calc((100% - 1.15rem) * ${1 - part})`;
      return tick;
    });
    if (this.down) this.outages(svg);
    layers.forEach((layer, n) => (this.kind === 'bars' ? this.bars(svg, layer, this.colour(names[n]), y) : this.layer(svg, layer, this.colour(names[n]), names.length, y)));
    if (axis.pointed) { const at = x(axis.pointed.from + axis.pointed.seconds * 500); svg.append(element('line', { class: 'cursor', x1: at, x2: at, y1: 0, y2: 100 })); }
    const times = [element('span', { class: 'time from' }, clock(axis.from)), element('span', { class: 'time to' }, axis.pointed ? clock(axis.pointed.from) : 'now')];
    this.place.replaceChildren(svg, ...ticks, ...times);
    if (this.empty && !names.length) this.place.append(element('p', { class: 'empty' }, this.empty));
    this.tell();
  }

  colour(name) { return this.names.indexOf(name) % 8; }

  outages(svg) {
    for (const [from, to] of runs(this.buckets.map((b) => !b.link_up || b.link_losses > 0))) {
      const [left, right] = [x(this.buckets[from].from), x(this.buckets[to].from + this.buckets[to].seconds * 1000)];
      svg.append(element('rect', { class: 'down', x: left, width: Math.max(0.5, right - left), y: 0, height: 100 }));
    }
  }

  /** The legend, and the same for who cannot see. Bars are rare: what they come to together, unless one is pointed at. */
  tell() {
    const at = axis.pointed ? this.buckets.indexOf(axis.pointed) : this.buckets.length - 1;
    const value = (name) => this.kind === 'bars' && !axis.pointed ? this.values.reduce((all, values) => all + (values[name] ?? 0), 0) : this.values[at]?.[name] ?? (this.kind === 'lines' ? null : 0);
    const told = this.names.map((name) => [name, value(name)]);
    const text = (value) => value == null ? '–' : this.format(value);
    this.place.setAttribute('aria-label', `${this.title}: ${told.map(([name, value]) => `${name} ${text(value)}`).join(', ') || this.empty || 'nothing'}`);
    this.legend.replaceChildren(...told.map(([name, value]) => element('li', {}, element('i', { class: `s${this.colour(name)}` }), name, element('b', {}, text(value)))));
  }

  /** Bars, each wide and high enough to be seen. */
  bars(svg, layer, colour, y) {
    layer.forEach(([from, to], i) => {
      if (to === null || to === from) return;
      const { from: begin, seconds } = this.buckets[i];
      const height = Math.max(2.5, y(from) - y(to));
      const width = Math.max(0.7, seconds * 1000 * 100 / (axis.to - axis.from));
      svg.append(element('rect', { class: `area s${colour}`, x: x(begin), width, y: y(from) - height, height }));
    });
  }

  /** A line, with a band below where they stand on each other or it is alone; interrupted where there is no value. */
  layer(svg, layer, colour, count, y) {
    const middle = (i) => x(this.buckets[i].from + this.buckets[i].seconds * 500).toFixed(2);
    const next = (i) => i > 0 && this.buckets[i].from - (this.buckets[i - 1].from + this.buckets[i - 1].seconds * 1000) < 15_000;
    const joined = layer.map(([, value]) => value !== null);
    for (const [first, last] of runs(joined)) {
      let run = [];
      const end = () => { if (run.length) this.run(svg, run, layer, colour, count, middle, y); run = []; };
      for (let i = first; i <= last; i++) { if (run.length && !next(i)) end(); run.push(i); }
      end();
    }
  }

  run(svg, run, layer, colour, count, middle, y) {
    const points = (side, list) => list.map((i) => `${middle(i)},${y(layer[i][side])}`).join('L');
    const dot = run.length === 1 ? `${(middle(run[0]) - 0.3).toFixed(2)},` : '';
    const upper = (dot && `${dot}${y(layer[run[0]][1])}L`) + points(1, run);
    const lower = points(0, [...run].reverse()) + (dot && `L${dot}${y(layer[run[0]][0])}`);
    if (this.kind === 'bands' || count === 1) svg.append(element('path', { class: `area s${colour} ${this.kind}`, d: `M${upper}L${lower}Z` }));
    svg.append(element('path', { class: `line s${colour}`, d: `M${upper}` }));
  }
}
