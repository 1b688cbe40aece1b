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

/** Topics that are followed, each from this place. */
const following = (positions, ...more) => {
  const topics = new Topics();
  const names = [...Object.keys(positions), ...more];
  topics.follow(new Map(names.map((name) => [name, undefined])));
  topics.answered(topics.asked(names), undefined, { positions }, true);
  return topics;
};
const event = (topic, position) => ({ topic, position, event: {} });
const followAlso = (topics, topic, from) => topics.follow(new Map([...topics.byName.keys()].map((name) => [name, undefined]).concat([[topic, from]])));

test('only what an answer has told a place of has one: events move it, and those of a whole area give none', () => {
  const topics = following({ 'comments:42': 'L.1-2', comments: 'L.1-0' }, 'comments:*');
  for (let n = 1; n <= 1000; n++) topics.event(event(`comments:k${n}`, 'L.1-7'));
  topics.event(event('comments:42', 'L.1-3'));
  assert.deepEqual(topics.positions, { 'comments:42': 'L.1-3', comments: 'L.1-0' });
  const asked = new Topics();
  asked.follow(new Map([['comments:*', undefined], ['comments:42', undefined]]));
  asked.event(event('comments:42', 'L.1-8'));
  assert.deepEqual(asked.positions, {}, 'it came by the area, while its own answer is still due');
});

test('beside its whole area a page begins anew, whatever becomes of that area until the answer', () => {
  for (const stays of [true, false]) {
    const topics = following({ comments: 'L.1-0' }, 'comments:*');
    const from = { at: 100_000, positions: { 'comments:42': 'L.1-5', comments: 'L.1-0' } };
    for (const seq of [6, 7, 8]) topics.event(event('comments:42', `L.1-${seq}`));
    followAlso(topics, 'comments:42', from);
    const resume = topics.resume(['comments:42']);
    assert.equal(resume?.positions['comments:42'], undefined, 'what follows its place would not be taken twice');
    const asked = topics.asked(['comments:42']);
    if (!stays) topics.follow(new Map([['comments:42', from]]));
    topics.answered(asked, resume, { at: 101_000, positions: { 'comments:42': 'L.1-8', comments: 'L.1-0' } }, true);
    assert.equal(topics.isCurrent('comments:42', from), false);
  }
});

test('a resync that one topic begins with is for all others that it concerns, and for nobody else', () => {
  const owed = (name, ...others) => {
    const topics = following({ comments: 'L.1-0', projects: 'L.1-0' }, ...others);
    followAlso(topics, name, { at: 100_000, positions: { [name]: 'L.1-5', comments: 'L.1-0' } });
    topics.answered(topics.asked([name]), { positions: {} }, { at: 101_000, positions: {} }, true);
    return topics;
  };
  const resync = (...topics) => ({ topics, reason: 'live', at: 101_000, positions: {} });
  assert.deepEqual(owed('comments:42', 'comments:*').resynced(resync('comments:42')), { fresh: ['comments:42'], rest: ['comments:42'] }, 'whoever follows the whole area');
  const byKey = new Topics();
  byKey.follow(new Map([['comments:42', undefined]]));
  byKey.answered(byKey.asked(['comments:42']), undefined, { at: 1, positions: { 'comments:42': 'L.1-5', comments: 'L.1-0' } }, true);
  followAlso(byKey, 'comments');
  byKey.answered(byKey.asked(['comments']), { positions: {} }, { at: 2, positions: {} }, true);
  assert.deepEqual(byKey.resynced(resync('comments')), { fresh: ['comments'], rest: ['comments'] }, 'whoever follows a key of the area');
  const alone = new Topics();
  alone.follow(new Map([['comments:42', { at: 100_000, positions: { 'comments:42': 'L.1-5' } }]]));
  alone.answered(alone.asked(['comments:42']), { positions: {} }, { at: 101_000, positions: {} }, true);
  assert.deepEqual(alone.resynced(resync('comments:42', 'comments')), { fresh: ['comments:42'], rest: [] }, 'it reads once');
});

test('after a refusal nothing is known of the area: it may have ended with the key', () => {
  const positions = { 'comments:42': 'L.1-5', comments: 'L.1-0' };
  const topics = following(positions);
  topics.refused('comments:42', 'forbidden');
  topics.answered(topics.asked(['comments:42']), undefined, { at: 104_000, positions }, true);
  assert.equal(topics.isCurrent('comments', { at: 200_000, positions }), false);
});

test('what is asked for goes on from when the page was rendered, until a node has said where it stands', () => {
  const topics = following({ projects: 'L.1-0' });
  topics.at = 1_050_000;
  followAlso(topics, 'comments:42', { at: 1_040_000, positions: { 'comments:42': 'L.1-5' } });
  assert.equal(topics.resume(['comments:42']).at, 1_040_000);
  topics.answered(topics.asked(['comments:42']), topics.resume(['comments:42']), { positions: {} }, false);
  topics.lost();
  assert.equal(topics.resume(['comments:42']).at, 1_040_000, 'Redis was away: nobody has looked for what it missed');
  topics.answered(topics.asked(['comments:42']), topics.resume(['comments:42']), { positions: { 'comments:42': 'L.1-5' } }, true);
  assert.equal(topics.resume(['comments:42']).at, 1_050_000);
});

test('what nobody follows any more is forgotten: a page from before takes what it lacks', () => {
  const topics = following({ 'comments:42': 'L.1-5', comments: 'L.1-0' });
  topics.event(event('comments:42', 'L.1-6'));
  topics.follow(new Map());
  const from = { at: 100_000, positions: { 'comments:42': 'L.1-5', comments: 'L.1-0' } };
  followAlso(topics, 'comments:42', from);
  assert.equal(topics.isCurrent('comments:42', from), true);
  assert.equal(topics.event(event('comments:42', 'L.1-6')), true);
});

test('an area keeps its place as long as a key of it is followed', () => {
  const topics = following({ comments: 'L.1-3', 'comments:42': 'L.1-5' });
  topics.follow(new Map([['comments:42', undefined]]));
  topics.event(event('comments', 'L.1-4'));
  assert.deepEqual(topics.positions, { comments: 'L.1-4', 'comments:42': 'L.1-5' });
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

test('a page that is told of missed live events is not current, though its positions are', () => {
  const topics = new Topics();
  const from = { at: 100_000, positions: { projects: 'L.1-1' } };
  topics.follow(new Map([['projects', from]]));
  const resume = topics.resume(['projects']);
  topics.answered(topics.asked(['projects']), resume, { at: 101_500, positions: {} }, true);
  const { fresh } = topics.resynced({ topics: ['projects'], reason: 'live', at: 101_500, positions: { projects: 'L.1-1' } });
  assert.deepEqual(fresh, ['projects']);
  assert.equal(topics.isCurrent('projects', from), false);
});

test('a page from before the link began is not current: nobody knows which live events came in between', () => {
  const topics = new Topics();
  topics.follow(new Map([['comments:42', undefined]]));
  const positions = { 'comments:42': 'L.1-5', comments: 'L.1-0' };
  topics.answered(topics.asked(['comments:42']), undefined, { at: 120_000, positions }, true);
  assert.equal(topics.isCurrent('comments:42', { at: 114_000, positions }), false);
  assert.equal(topics.isCurrent('comments:42', { at: 160_000, positions }), true);
  topics.follow(new Map([['comments:42', undefined], ['comments:43', undefined]]));
  topics.answered(topics.asked(['comments:43']), undefined, { at: 155_000, positions: { 'comments:43': 'L.2-0', comments: 'L.1-0' } }, true);
  assert.equal(topics.isCurrent('comments:42', { at: 160_000, positions }), true, 'it was followed all the time');
  assert.equal(topics.isCurrent('comments:43', { at: 150_000, positions: { 'comments:43': 'L.2-0', comments: 'L.1-0' } }), false, 'and this was not');
  topics.refused('comments:42', 'forbidden');
  topics.answered(topics.asked(['comments:42']), undefined, { at: 200_000, positions }, true);
  assert.equal(topics.isCurrent('comments:42', { at: 160_000, positions }), false, 'it was refused meanwhile');
});

test('a page from before the one that the link began with is not current', () => {
  const topics = new Topics();
  const positions = { 'comments:42': 'L.1-5', comments: 'L.1-0' };
  const from = { at: 100_000, positions };
  topics.follow(new Map([['comments:42', from]]));
  topics.answered(topics.asked(['comments:42']), topics.resume(['comments:42']), { at: 101_000, positions }, true);
  assert.equal(topics.isCurrent('comments:42', from), true);
  assert.equal(topics.isCurrent('comments:42', { at: 90_000, positions }), false);
});

test('what begins with a resync has no past, whatever its reason', () => {
  const topics = new Topics();
  const positions = { 'comments:42': 'L.1-5', comments: 'L.1-0' };
  topics.follow(new Map([['comments:42', undefined]]));
  topics.answered(topics.asked(['comments:42']), undefined, { at: 0, positions: {} }, false);
  topics.resynced({ topics: Object.keys(positions), reason: 'gap', at: 105_000, positions });
  assert.equal(topics.isCurrent('comments:42', { at: 100_000, positions }), false);
});

test('what is dropped as a double has moved the place all the same', () => {
  const topics = following({ comments: 'L.1-0' }, 'comments:*');
  const from = { at: 100_000, positions: { 'comments:42': 'L.1-5', comments: 'L.1-0' } };
  topics.event(event('comments:42', 'L.1-6'));
  followAlso(topics, 'comments:42', from);
  topics.answered(topics.asked(['comments:42']), topics.resume(['comments:42']), { positions: { 'comments:42': 'L.1-5' } }, true);
  assert.equal(topics.event(event('comments:42', 'L.1-6')), false, 'the replay');
  topics.follow(new Map([['comments', undefined], ['comments:42', undefined]]));
  assert.equal(topics.isCurrent('comments:42', from), false);
});

test('a key that begins in the turn in which its area is left takes what the area has had', () => {
  const topics = following({ comments: 'L.1-0', 'comments:7': 'L.1-1' }, 'comments:*');
  topics.event(event('comments:42', 'L.1-6'));
  const from = { at: 100_000, positions: { 'comments:42': 'L.1-5', comments: 'L.1-0' } };
  topics.follow(new Map([['comments:7', undefined], ['comments:42', from]]));
  assert.equal(topics.event(event('comments:42', 'L.1-6')), true);
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
