// The tour that README describes, played on `carillon dev`; its pictures are README's (docs/screenshots, written with TOUR_PICTURES=1, else to tests/output).
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import axe from 'axe-core';
import { test, until, pause } from '../lib/harness.js';
import { dev, node, SECRET } from '../lib/rig.js';
import { context, pane, picture, screen } from '../lib/browser.js';

const folder = process.env.TOUR_PICTURES ? fileURLToPath(new URL('../../../docs/screenshots/', import.meta.url)) : undefined;
const SIZES = { '': { width: 1280, height: 800 }, '-phone': { width: 390, height: 844 } };

/** The demo of `carillon dev`, with the screens of its editors. */
async function demo(t, options, query = '') {
  const { link } = await dev(t);
  const page = await (await context(t, options)).newPage();
  const broken = [];
  page.on('pageerror', (error) => broken.push(error.message));
  await page.goto(link + query);
  const screenOf = async (editor) => {
    const frame = await until(`the screen of ${editor}`, () => page.frames().find((f) => f.url().includes(`editor=${editor}`)));
    await frame.locator('#badge[data-state="live"]').waitFor({ state: 'attached' });
    return screen(frame);
  };
  return { page, link, broken, screenOf };
}

/** Waits until all of an element is seen: what it shows may still be on its way. */
const inSight = (what, locator) => until(what, async () => (await seen(locator)) === 1);

/** What can be seen of an element without scrolling: the part of its height that lies within its frame and its scrolled parents. */
const seen = (locator) => locator.evaluate((element) => {
  const box = element.getBoundingClientRect();
  let [top, bottom] = [Math.max(box.top, 0), Math.min(box.bottom, innerHeight)];
  for (let up = element.parentElement; up; up = up.parentElement) {
    if (getComputedStyle(up).overflowY === 'visible') continue;
    const around = up.getBoundingClientRect();
    [top, bottom] = [Math.max(top, around.top), Math.min(bottom, around.bottom)];
  }
  return box.height ? Math.max(0, bottom - top) / box.height : 0;
});

for (const colorScheme of ['light', 'dark']) for (const [size, viewport] of Object.entries(SIZES)) {
  const suffix = `${size}${colorScheme === 'dark' ? '-dark' : ''}`;
  test(`the tour: start, comment, stale, recovered (${viewport.width} × ${viewport.height}, ${colorScheme})`, async (t) => {
    const { page, broken, screenOf } = await demo(t, { viewport, colorScheme });
    const phone = viewport.width < 500;
    const [anna, bilal] = [await screenOf('anna'), await screenOf('bilal')];
    /** On a phone one screen is seen at a time. */
    const at = async (name) => { if (phone) await page.getByRole('radio', { name, exact: true }).check({ force: true }); };
    const shot = async (name) => {
      await pause(250);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name}: nothing sticks out`);
      await picture(page, `demo-${name}${suffix}`, folder);
    };
    const quiet = (who) => until('no toast is in the way', async () => (await who.page.locator('.toast').count()) === 0, 20_000);

    assert.equal(await page.getByText('What one editor changes shows on the others’ screens, at once.').isVisible(), true, 'it says what it is for');
    assert.equal(await page.getByText('Comment.', { exact: true }).isVisible(), !phone, 'the first step is told where there is room');
    assert.equal((await anna.badge.innerText()).trim(), 'Live', 'how it is connected is nothing for editors');
    assert.match(await anna.badge.getAttribute('title'), /^By WebSocket, node \S+, since \d\d:\d\d:\d\d$/);
    for (const n of [0, 1]) await inSight(`comment ${n} is seen beside the items`, anna.page.locator('#comments .entry').nth(n));
    await shot('start');

    await anna.comment('The headline is shorter than the coat now, @bilal.');
    await bilal.shows('The headline is shorter than the coat now, @bilal.');
    await until('his bell counts one', async () => (await bilal.unread()) === 1);
    await at('Bilal');
    await inSight('the new comment is seen, whatever a toast says', bilal.page.locator('#comments .entry').first());
    await shot('comment');

    await quiet(bilal);
    await bilal.page.locator('#break-button').click();
    await bilal.page.locator('#offline').check({ force: true });
    await bilal.becomes('stale');
    assert.equal(await seen(bilal.page.locator('#badge')), 1, 'the popover does not cover the bar');
    await bilal.page.locator('#break-button').click();
    await at('Anna');
    await anna.comment('Bilal does not see this yet.');
    await anna.shows('Bilal does not see this yet.');
    await at('Bilal');
    assert.match((await bilal.badge.innerText()).trim(), /^Not live since \d\d:\d\d:\d\d/);
    assert.equal((await bilal.comments()).some((c) => c.includes('does not see this yet')), false);
    await shot('stale');

    await bilal.page.locator('#break-button').click();
    await bilal.page.locator('#offline').uncheck({ force: true });
    await bilal.page.locator('#break-button').click();
    await bilal.live();
    await bilal.shows('Bilal does not see this yet.');
    const missed = bilal.page.locator('#comments .entry', { hasText: 'Bilal does not see this yet.' });
    assert.equal(await missed.locator('.replayed').count(), 1, 'what was replayed is marked');
    assert.equal(await bilal.page.locator('.replayed').count(), 1, 'and nothing else');
    assert.match(await bilal.badge.innerText(), /Caught up: 1 missed change replayed/);
    const { holes, doubles } = await bilal.audit();
    assert.deepEqual([holes, doubles], [0, 0]);
    await shot('recovered');

    await bilal.page.locator('#break-button').click();
    await bilal.page.locator('#block-websocket').check({ force: true });
    await bilal.live('SSE', 20_000);
    assert.deepEqual(broken, []);
  });
}

test('the steps of the tour, one line above the screens', async (t) => {
  const { page, screenOf } = await demo(t, { viewport: SIZES[''] });
  const anna = await screenOf('anna');
  const steps = page.locator('#tour li');
  for (let n = 0; n < 5; n++) {
    assert.equal(await steps.nth(n).isVisible(), true);
    assert.equal(await page.locator('#tour li:visible').count(), 1);
    assert.ok((await page.locator('#tour').boundingBox()).height < 50, 'one line');
    await inSight('comments stay in sight', anna.page.locator('#comments .entry').nth(1));
    await page.locator('#tour-next').click();
  }
  assert.equal(await page.locator('#tour').isVisible(), false, 'done');
});

test('the tour goes on by itself when its step is done, and not for anything else', async (t) => {
  const { page, screenOf } = await demo(t, { viewport: SIZES[''] });
  const [anna, bilal] = [await screenOf('anna'), await screenOf('bilal')];
  const at = (n) => until(`step ${n} is shown`, async () => (await page.locator('#tour li:visible').getAttribute('value')) === String(n));
  await at(1);
  await anna.page.locator('[data-act="approve"]:enabled').first().click();
  await anna.comment('The tour goes on.');
  await at(2);
  await anna.comment('That was the step before.');
  await anna.shows('That was the step before.');
  await at(2);
  await anna.page.locator('[data-act="approve"]:enabled').first().click();
  await at(3);
  await bilal.page.locator('#break-button').click();
  await bilal.page.locator('#offline').check({ force: true });
  await at(4);
  await page.locator('#tour-back').click();
  await at(3);
  await page.locator('#tour-next').click();
  await bilal.page.locator('#offline').uncheck({ force: true });
  await at(5);
  await bilal.page.locator('#block-websocket').check({ force: true });
  await bilal.live('SSE', 20_000);
  assert.equal(await page.locator('#tour-next').innerText(), 'Done');
});

test('three screens show comments, and on a phone every editor is reached and stays live', async (t) => {
  const { screenOf } = await demo(t, { viewport: SIZES[''] }, '?count=3');
  for (const editor of ['anna', 'bilal', 'chiyo']) {
    const { page } = await screenOf(editor);
    for (const n of [0, 1]) await inSight(`${editor} sees comment ${n}`, page.locator('#comments .entry').nth(n));
    assert.ok(await seen(page.locator('#comment-form')) === 1 && await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  }
  const phone = await demo(t, { viewport: SIZES['-phone'] });
  const anna = await phone.screenOf('anna');
  await phone.page.getByRole('radio', { name: 'Chiyo' }).check({ force: true });
  const chiyo = await phone.screenOf('chiyo');
  await chiyo.comment('From the third screen');
  await phone.page.getByRole('radio', { name: 'Anna' }).check({ force: true });
  await anna.shows('From the third screen');
  assert.equal(await phone.page.locator('iframe:visible').count(), 1);
});

test('nothing moves when the state changes: live, stale, live, off', async (t) => {
  const a = await node(t, 'a');
  // Each size has an editor of its own: who was shut out is let in again half a minute later at the earliest.
  const sizes = { anna: SIZES[''], bilal: SIZES['-phone'], chiyo: { width: 620, height: 690 } };
  for (const [editor, viewport] of Object.entries(sizes)) {
    const ctx = await context(t, { viewport });
    await ctx.addInitScript(() => {
      window.moved = [];
      new PerformanceObserver((list) => window.moved.push(...list.getEntries().map((e) => [e.value, e.sources.map(({ node, previousRect: from, currentRect: to }) => `${node?.id || node?.parentElement?.outerHTML.slice(0, 60)}: ${JSON.stringify(from)} → ${JSON.stringify(to)}`).join('; ')]))).observe({ type: 'layout-shift', buffered: true });
    });
    const own = await pane(ctx, a.base, editor);
    await own.live();
    await until('the page is whole', async () => (await own.comments()).length > 0 && (await own.page.locator('#notifications li').count()) > 0);
    const places = () => own.page.evaluate(() => ['#main', '#projects', '#overview', '#comment-form', '#comments', '#bell', '#items tr'].map((s) => { const { x, y, width, height } = document.querySelector(s).getBoundingClientRect(); return [s, x, y, width, height].join(' '); }));
    // Two frames: what has moved is measured at the end of one.
    const moved = () => own.page.evaluate(() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => go(window.moved.splice(0)))))));
    await own.page.locator('#break-button').click();
    await moved();
    const before = await places();
    const still = async (what) => {
      assert.deepEqual(await moved(), [], `layout shift when ${what}, ${viewport.width} px`);
      assert.deepEqual(await places(), before, `places when ${what}, ${viewport.width} px`);
    };
    await own.page.locator('#offline').check({ force: true });
    await own.becomes('stale');
    await still('stale');
    await own.page.locator('#offline').uncheck({ force: true });
    await own.live();
    await still('live again');
    const answer = await fetch(`${a.internal}/disconnect`, { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Bearer ${SECRET}` }, body: JSON.stringify({ user: editor }) });
    assert.equal(answer.status, 200);
    await own.becomes('off');
    await still('off');
    // The measure itself: something that does move is seen.
    await own.page.evaluate(() => { const block = document.createElement('div'); block.style.cssText = 'flex:none;height:60px'; document.querySelector('.bar').before(block); });
    await until('a planted shift is measured', async () => (await moved()).length > 0);
    await ctx.close();
  }
});

test('toasts lead to the thing, are two at most, and cover neither composer nor comments', async (t) => {
  const a = await node(t, 'a');
  for (const viewport of [...Object.values(SIZES), { width: 620, height: 690 }, { width: 412, height: 690 }]) {
    const bilal = await pane(await context(t, { viewport }), a.base, 'bilal');
    await bilal.live();
    await until('the page is whole', async () => (await bilal.comments()).length > 0);
    const before = await bilal.unread();
    const made = [];
    for (const n of [1, 2, 3]) made.push((await a.api('projects/42/comments', { editor: 'anna', text: `${viewport.width}: number ${n}, @bilal` })).comment.id);
    await until('the bell counts three more', async () => (await bilal.unread()) === before + 3);
    const { page } = bilal;
    await until('two toasts', async () => (await page.locator('.toast').count()) === 2);
    for (const covered of ['#comment-form', '#comments', '#badge', '.bar']) {
      const lies = await page.evaluate((covered) => {
        const thing = document.querySelector(covered).getBoundingClientRect();
        return [...document.querySelectorAll('.toast')].some((toast) => { const b = toast.getBoundingClientRect(); return b.bottom > thing.top && b.top < thing.bottom && b.right > thing.left && b.left < thing.right; });
      }, covered);
      assert.equal(lies, false, `a toast lies over ${covered} at ${viewport.width} px`);
    }
    await page.locator('.toast').first().click();
    await until('the comment is in focus', async () => (await page.evaluate(() => document.activeElement?.dataset.comment)) === made[1]);
    assert.ok(await seen(page.locator(`[data-comment="${made[1]}"]`)) > 0.9, 'and in sight');
    await until('it counts as read', async () => (await bilal.unread()) === before + 2);
    await page.context().close();
  }
});

test('the bell: its number is that of the unread rows, rows are links, into other projects too', async (t) => {
  const a = await node(t, 'a');
  const anna = await pane(await context(t, { viewport: SIZES[''] }), a.base, 'anna');
  await anna.live();
  const far = await a.api('projects/43/comments', { editor: 'bilal', text: 'Look here, @anna' });
  await a.api('notify', { editor: 'bilal', to: 'anna', text: 'Only a note' });
  await a.api('projects/43/items/i9/approve', { editor: 'chiyo' });
  await until('the bell counts four', async () => (await anna.unread()) === 4);
  const { page } = anna;
  await page.locator('#bell').click();
  assert.equal(await page.locator('#notifications .unread').count(), 4);
  assert.equal(await page.locator('#inbox-count').innerText(), '4 unread');
  await page.locator('#notifications').getByRole('link', { name: /Bilal Haddad mentioned you/ }).click();
  await until('the comment of the other project', async () => (await page.evaluate(() => document.activeElement?.dataset.comment)) === far.comment.id);
  assert.equal(await page.locator('#project-name').innerText(), 'Help centre relaunch');
  assert.equal(await page.locator('#inbox').isVisible(), false);
  await until('one less', async () => (await anna.unread()) === 3);
  await page.locator('#bell').click();
  await page.locator('#notifications').getByRole('link', { name: 'Only a note' }).click();
  await until('a note is shown itself', async () => (await anna.unread()) === 2 && await page.locator('#inbox').isVisible());
  // The address of a row works by itself: in a new tab it leads to the same thing.
  const href = await page.locator('#notifications').getByRole('link', { name: /Chiyo Tanaka approved/ }).getAttribute('href');
  await page.goto(new URL(href, page.url()).href);
  await until('the item is in focus', async () => (await page.evaluate(() => document.activeElement?.dataset.item)) === 'i9');
  assert.equal(await page.locator('#project-name').innerText(), 'Help centre relaunch');
});

for (const colorScheme of ['light', 'dark']) {
  test(`accessible in ${colorScheme}: contrast, names, roles, as axe-core sees them`, async (t) => {
    const { link } = await dev(t);
    const page = await (await context(t, { viewport: { width: 1180, height: 900 }, colorScheme, reducedMotion: 'reduce' })).newPage();
    const check = async (what) => {
      await page.evaluate(axe.source);
      const { violations, passes } = await page.evaluate(() => window.axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'], iframes: false }).then(({ violations, passes }) => ({ violations, passes: passes.map((p) => p.id) })));
      assert.ok(passes.includes('color-contrast') && passes.length > 10, 'it has looked');
      assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => `${n.target} ${n.failureSummary}`).join('; ')}`), [], what);
    };
    await page.goto(`${link}pane.html?editor=anna`);
    const anna = screen(page);
    await anna.live();
    await check('live');
    await page.locator('#bell').click();
    await check('the bell');
    await page.keyboard.press('Escape');
    await page.locator('#break-button').click();
    await page.locator('#offline').check({ force: true });
    await anna.becomes('stale');
    await check('stale, and the switches');
    await page.locator('#offline').uncheck({ force: true });
    await page.keyboard.press('Escape');
    await anna.live();
    await page.locator('#log-button').click();
    await page.getByRole('button', { name: 'Coat finder', exact: true }).click();
    await until('the content', async () => (await page.getByLabel('Title').inputValue()) === 'Coat finder');
    await check('the log, and the content');
    await page.keyboard.press('Escape');
    await page.setViewportSize(SIZES['-phone']);
    await check('a phone');
    await page.goto(link);
    await check('the frame, on a phone');
    await page.setViewportSize(SIZES['']);
    await page.getByRole('button', { name: 'Tour' }).click();
    await check('the frame and the tour');
  });
}

test('README shows these pictures, and tells these steps', () => {
  const readme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8');
  const shown = [...readme.matchAll(/!\[[^\]]+\]\(docs\/screenshots\/([\w-]+)\.png\)/g)].map(([, name]) => name);
  assert.ok(shown.length >= 3);
  const source = readFileSync(new URL(import.meta.url), 'utf8');
  for (const name of shown) {
    assert.ok(source.includes(`shot('${name.replace(/^demo-|-phone|-dark/g, '')}')`), `${name} is taken by the tour`);
    assert.ok(readFileSync(new URL(`../../../docs/screenshots/${name}.png`, import.meta.url)).length > 10_000);
  }
});
