// Compiled only: the types that users see.
import { Publisher, Refused, topic, type Result } from '../src/index.js';

const publisher = new Publisher('redis://localhost', { source: 'cms', patience: 5000 });
const one: string = await publisher.record(topic('comments', 42), { type: 'comment.created' });
const several: string[] = await publisher.record(['content:1', 'content:2'], { type: 'content.moved', data: { to: 1 } });
const results: Result[] = await publisher.recordMany([['content:1', { type: 'content.saved' }]]);
// @ts-expect-error an event needs a type
await publisher.record('content:1', { data: 1 });
if (results[0]?.error instanceof Refused) console.error(one, several);
