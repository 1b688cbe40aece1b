// What a link keeps of topics: bounded against doubles, and honest about what a rendered page knows.
import test from 'node:test';
import assert from 'node:assert/strict';
import { isTopic, topicOf } from '../src/protocol.js';
import { Topics } from '../src/topics.js';

test('doubles are dropped, and what is kept against them is bounded', () => {
  const topics = new Topics();
  for (let n = 1; n <= 20_000; n++) assert.equal(topics.event({ topic: 'comments:42', position: `L.1-${n}`, event: {} }), true);
  assert.equal(topics.event({ topic: 'comments:42', position: 'L.1-20000', event: {} }), false);
  assert.equal(topics.seen.size, 2000);
});

test('events of a whole area give no positions, and those of a topic that is followed by name move its own', () => {
  const topics = new Topics();
  topics.follow(new Map([['comments:*', undefined], ['comments:42', undefined]]));
  for (let n = 1; n <= 1000; n++) topics.event({ topic: `comments:k${n}`, position: 'L.1-7', event: {} });
  topics.event({ topic: 'comments:42', position: 'L.1-3', event: {} });
  assert.deepEqual(topics.positions, { 'comments:42': 'L.1-3' });
  topics.follow(new Map([['comments:*', undefined], ['comments:42', undefined], ['comments:k1', undefined]]));
  assert.deepEqual(topics.resume(['comments:k1']), undefined, 'it begins now');
});

test('a page is current only where its topic and its area stand where the link does, and no live event came since', () => {
  const topics = new Topics();
  const from = { at: 100_000, positions: { 'comments:42': 'L.1-1', comments: 'L.1-0' } };
  topics.follow(new Map([['comments:42', from]]));
  assert.equal(topics.isCurrent('comments:42', from), true);
  assert.equal(topics.isCurrent('comments:42', { at: 100_000, positions: { 'comments:42': 'L.1-1' } }), false, 'nothing is known of the area');
  topics.event({ topic: 'comments', at: 90_000, event: {} });
  assert.equal(topics.isCurrent('comments:42', from), false, 'a live event, perhaps after the page was rendered');
  const later = { ...from, at: 130_000 };
  assert.equal(topics.isCurrent('comments:42', later), true);
  topics.event({ topic: 'comments:42', position: 'L.1-2', event: {} });
  assert.equal(topics.isCurrent('comments:42', later), false);
});

test('an answer to an earlier question does not complete a newer one', () => {
  const topics = new Topics();
  const wanted = new Map([['comments:42', undefined]]);
  topics.follow(wanted);
  const first = topics.asked(['comments:42']);
  topics.follow(new Map());
  topics.follow(wanted);
  const second = topics.asked(['comments:42']);
  assert.deepEqual(topics.answered(first, undefined, { positions: {} }, true).followed, []);
  assert.deepEqual(topics.answered(second, undefined, { positions: {} }, true).followed, ['comments:42']);
});

test('only what a node may take is asked for', () => {
  for (const key of ['a b', '50%', 'a,b', '{x}', '*', '\u0000', '\u0085', '\u007f', 'é', '🍁', 'Tom & Jerry']) assert.ok(isTopic(topicOf('comments', key)), key);
  for (const topic of ['', 'comments:', 'Comments:1', 'comments:a b', 'comments:a,b', 'comments:50%', 'comments:a\u0085b', 'content:\ud83c', `content:${'x'.repeat(201)}`, `content:${'é'.repeat(101)}`, 'a:*:b', '1a']) assert.ok(!isTopic(topic), JSON.stringify(topic));
  for (const topic of ['comments', 'project-items:42', 'content:*', `content:${'é'.repeat(100)}`, 'comments:a:b', 'comments:%2C']) assert.ok(isTopic(topic), topic);
  assert.equal(topicOf('comments', '\u0085'), 'comments:%C2%85');
});
