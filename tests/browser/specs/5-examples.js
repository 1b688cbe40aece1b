// The examples of client/examples, as they are written, on a small CMS of the test's own beside a real node. (React: client/test.)
import http from 'node:http';
import { readFile } from 'node:fs/promises';
import { test, until } from '../lib/harness.js';
import { redis, node, nginx } from '../lib/rig.js';
import { context } from '../lib/browser.js';

const types = { html: 'text/html', js: 'text/javascript' };
async function site(t) {
  const a = await node(t, 'a', { redis: await redis(t) });
  const comments = [{ text: 'first' }];
  const cms = http.createServer(async (req, res) => {
    const path = new URL(req.url, 'http://x').pathname;
    if (path === '/cms/token') return res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(await a.api('token', { editor: 'anna' })));
    if (path === '/cms/projects/42/comments') return res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ comments }));
    const file = path.startsWith('/dojo/') ? new URL(`../node_modules${path}`, import.meta.url) : new URL(`../../../client${path}`, import.meta.url);
    const body = await readFile(file).catch(() => null);
    return body ? res.writeHead(200, { 'content-type': types[path.split('.').pop()] ?? 'text/plain' }).end(body) : res.writeHead(404).end();
  }).listen(0, '127.0.0.1');
  t.after(() => { cms.close(); cms.closeAllConnections(); });
  await until('the CMS listens', () => cms.listening);
  const front = await nginx(t, `
    location /realtime { proxy_pass ${a.base}; proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade; }
    location / { proxy_pass http://127.0.0.1:${cms.address().port}; proxy_set_header Host $http_host; }`);
  const change = async (text) => { comments.push({ text }); await a.publish('comments:42', { type: 'comment.created', data: { project: 42 } }); };
  return { base: front.base, change };
}

test('the five-minute page of client/README.md, as it is printed there', async (t) => {
  const readme = await readFile(new URL('../../../client/README.md', import.meta.url), 'utf8');
  const [, html, js] = readme.match(/```html\n([\s\S]*?)```\n```js\n([\s\S]*?)```/);
  const a = await node(t, 'a', { redis: await redis(t) });
  const comments = [{ text: 'first' }];
  const answers = {
    '/': ['text/html', () => html],
    '/app.js': ['text/javascript', () => js],
    '/api/realtime-token': ['text/plain', async () => (await a.api('token', { editor: 'anna' })).token],
    '/api/projects/42/comments': ['application/json', () => JSON.stringify(comments)],
  };
  const page = await (await context(t)).newPage();
  await page.route((url) => url.pathname in answers, async (route) => {
    const [contentType, body] = answers[new URL(route.request().url()).pathname];
    await route.fulfill({ contentType, body: await body() });
  });
  await page.goto(`${a.base}/`);
  await until('live', async () => (await page.locator('#badge').innerText()) === 'live');
  await until('the first comment', async () => (await page.locator('#comments').innerText()) === 'first');
  comments.push({ text: 'second' });
  await a.publish('comments:42', { type: 'comment.created' });
  await until('the second comment', async () => (await page.locator('#comments li').count()) === 2);
});

for (const [name, badge] of [['plain', 'live by websocket'], ['dojo', 'live']]) {
  test(`the ${name} example`, async (t) => {
    const { base, change } = await site(t);
    const page = await (await context(t)).newPage();
    await page.goto(`${base}/examples/${name}/index.html`);
    await until('live', async () => (await page.locator('#badge').innerText()) === badge, 10_000);
    await until('the first comment', async () => (await page.locator('#comments').innerText()).includes('first'));
    await change('second');
    await until('the second comment', async () => (await page.locator('#comments').innerText()).includes('second'));
  });
}
