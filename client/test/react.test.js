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
