// A page in TypeScript, strict: compiled, not run. What must not compile is marked so.
import { Realtime, type AreaEvents, type Status, type CarillonEvent } from '../../realtime.js';

const rt = new Realtime({ url: '/realtime', token: async () => 'x', transports: ['websocket', 'sse'], shared: true, user: 'anna' });
const off: () => void = rt.on<{ project: number }>('comments:42', (event, { topic, position, replayed }) => {
  const project: number | undefined = event.data?.project;
  const texts: [string, string | undefined, boolean] = [topic, position, replayed];
  console.log(project, texts);
}, { signal: new AbortController().signal, once: true });
rt.on('comments:*', { handleEvent(event: CarillonEvent) { console.log(event.type); } });
rt.onResync('comments:42', ({ topic, reason }) => { if (reason === 'subscribed') console.log(topic); });
rt.onStatus(({ state, since, transport, node, reason }: Status) => { console.log(state, since, transport, node, reason); });
rt.onMessage(({ direction, message }) => { console.log(direction, message); });
rt.addEventListener('status', (e) => { const { state }: Status = e.detail; console.log(state); });
rt.addEventListener('refused', (e) => { const code: 'forbidden' | 'bad-topic' | 'too-many' = e.detail.code; console.log(code); });
rt.addEventListener('anything', (e: Event) => { console.log(e.type); });
new Realtime({ token: async ({ topics }) => { if (!topics.length) throw new Realtime.SignedOut(); return null; }, start: { config: { sse: true }, token: 'x', positions: { 'comments:42': 'p' }, at: 1 } }).connect();
rt.on<AreaEvents['notifications']['data']>('notifications:anna', (event) => { const unread: number | undefined = event.data?.unread; console.log(unread); });
const status: Status = await rt.ready();
console.log(status.user, rt.id, rt.status.state, Realtime.topic('content', 7));
rt.simulate({ block: ['websocket'], offline: false });
rt.off('comments:42', off);
rt.close();

// @ts-expect-error: there is no such transport
new Realtime({ transports: ['pigeon'] });
// @ts-expect-error: the id is not to be changed
rt.id = 'x';
