// The React example, in a document: it shows what is there, reads again at an event, and leaves no subscription behind.
import test from 'node:test';
import assert from 'node:assert/strict';
import { JSDOM } from 'jsdom';
import { WebSocket } from 'ws';
import { FakeNode, mint, until } from './fake-node.js';

const dom = new JSDOM('<!doctype html><main></main>', { url: 'http://127.0.0.1/' });
Object.assign(globalThis, { window: dom.window, document: dom.window.document, navigator: dom.window.navigator, AbortController: dom.window.AbortController, WebSocket, IS_REACT_ACT_ENVIRONMENT: false });
const { createElement: h, StrictMode } = await import('react');
const { createRoot } = await import('react-dom/client');
const { Realtime } = await import('../realtime.js');
const { useTopic, useRealtimeStatus } = await import('../react.js');

/** Shows a topic by `useTopic` for as long as the test runs. */
async function page(t, load, start) {
  const node = await new FakeNode().listen();
  const rt = new Realtime({ url: node.url, token: async () => mint('anna'), shared: false, start: start?.(node) });
  function Shown({ project }) {
    const { data, error } = useTopic(rt, `comments:${project}`, () => load(project));
    return h('p', {}, `${data ?? '…'}${error ? `, ${error.message}` : ''}`);
  }
  const root = createRoot(document.querySelector('main').appendChild(document.createElement('div')));
  t.after(async () => { root.unmount(); rt.close(); await node.kill(); });
  const text = () => document.querySelector('main').textContent;
  return { show: (project) => root.render(h(Shown, { project })), shows: (what) => until(what, () => text() === what) };
}

test('useTopic loads on a page that the server has rendered, too', async (t) => {
  const at = Date.now();
  const { show, shows } = await page(t, async () => 'first', (node) => ({ at, positions: { 'comments:42': node.head('comments:42'), comments: node.head('comments') } }));
  show(42);
  await shows('first');
});

test('a topic that cannot be loaded does not show the data of the one before', async (t) => {
  const { show, shows } = await page(t, async (project) => { if (project === 43) throw new Error('no'); return 'first'; });
  show(42);
  await shows('first');
  show(43);
  await shows('…, no');
});

test('useTopic and useRealtimeStatus', async (t) => {
  const node = await new FakeNode().listen();
  const rt = new Realtime({ url: node.url, token: async () => mint('anna'), shared: false });
  t.after(async () => { rt.close(); await node.kill(); });
  const cms = { 42: ['first'], 43: ['other'] };
  let reads = 0;
  function Comments({ project }) {
    const { state } = useRealtimeStatus(rt);
    const { data } = useTopic(rt, `comments:${project}`, async () => { reads++; return [...cms[project]]; });
    return h('p', {}, `${state}: ${data?.join(', ') ?? '…'}`);
  }
  const root = createRoot(document.querySelector('main'));
  const shown = () => document.querySelector('main').textContent;
  root.render(h(StrictMode, {}, h(Comments, { project: 42 })));
  await until('the first comment', () => shown() === 'live: first');
  cms[42].push('second');
  node.publish('comments:42', { type: 'comment.created' });
  await until('the second comment', () => shown() === 'live: first, second');
  root.render(h(StrictMode, {}, h(Comments, { project: 43 })));
  await until('the other project', () => shown() === 'live: other');
  await until('42 is left', () => [...node.sessions][0].topics.has('comments:43') && ![...node.sessions][0].topics.has('comments:42'));
  const before = reads;
  node.publish('comments:42', { type: 'comment.created' });
  root.unmount();
  await until('all is left', () => [...node.sessions][0].topics.size === 0);
  assert.equal(reads, before);
});
