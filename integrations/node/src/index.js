// Publishes events for Carillon from Node.js.
//
//   const publisher = new Publisher('redis://localhost:6379', { source: 'cms' });
//   await publisher.record(topic('comments', 42), { type: 'comment.created', data: { comment: 7 } });
//
// Publish after your transaction has committed: editors refetch as soon as the event reaches them.
export { Publisher } from './publisher.js';
export { NotPublished, QueueFull, Refused, Unavailable } from './errors.js';
export { encodeKey, folded, privateTopic, topic } from './topics.js';
