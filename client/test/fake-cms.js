// The simulated CMS of demo/API.md in JavaScript, on the fake node: for work on the demo's page without a real node.
//   node client/test/fake-cms.js [port]
import { readFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { FakeNode, mint } from './fake-node.js';

const folder = new URL('../../demo/', import.meta.url);
const kinds = { html: 'text/html', css: 'text/css', js: 'text/javascript', svg: 'image/svg+xml' };
const CSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; worker-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'";

export function cms(node) {
  const s = JSON.parse(readFileSync(new URL('seed.json', folder)));
  const next = { c: s.comments.length, n: s.notifications.length, e: 0 };
  const now = () => new Date().toISOString();
  const nameOf = (id) => s.editors.find((e) => e.id === id).name;
  const project = (id) => { const p = s.projects.find((x) => x.id === Number(id)); return p && { ...p, items: s.items.filter((i) => i.project === p.id).length, comments: s.comments.filter((c) => c.project === p.id).length }; };
  const touch = (id, who) => Object.assign(s.projects.find((x) => x.id === Number(id)), { modified: now(), modified_by: who });
  return async (req, res, url) => {
    if (url.pathname === '/demo') return res.writeHead(308, { location: '/demo/' }).end() || true;
    if (!url.pathname.startsWith('/demo/')) return false;
    const path = url.pathname.slice(6);
    if (!path.startsWith('api/')) {
      const file = path || 'index.html';
      res.writeHead(200, { 'content-type': `${kinds[file.split('.').pop()]}; charset=utf-8`, 'content-security-policy': CSP, 'cache-control': 'no-cache' });
      return res.end(await readFile(new URL(file, folder)).catch(() => '')) || true;
    }
    let body = '';
    for await (const chunk of req) body += chunk;
    const m = body ? JSON.parse(body) : {};
    const published = [];
    const answer = (o, status = 200) => { res.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' }).end(JSON.stringify(req.method === 'POST' && path !== 'api/token' ? { ...o, published } : o)); return true; };
    const say = (topic, type, data) => published.push({ topic, type, position: node.publish(topic, { id: `e${++next.e}`, type, time: now(), source: 'demo-cms', actor: m.editor, ...(m.origin && { origin: m.origin }), data }) });
    const unread = (who) => s.notifications.filter((n) => n.to === who && !n.read).length;
    const notify = (to, text, p = null) => { const n = { id: `n${++next.n}`, to, from: m.editor, text, project: p, read: false, created: now() }; s.notifications.unshift(n); say(`notifications:${to}`, 'notification.created', { notification: n.id, unread: unread(to) }); return n; };
    const comment = (p, kind, item, text) => { const c = { id: `c${++next.c}`, project: Number(p), kind, item, author: m.editor, text, created: now() }; s.comments.push(c); touch(p, m.editor); return c; };
    const saved = (i) => say(`project-items:${i.project}`, 'project_item.saved', { project: i.project, items: [{ id: i.id, content: i.content, language: i.language }], status: i.status });
    const move = (i, status, text) => {
      Object.assign(i, { status, version: i.version + 1, modified: now(), modified_by: m.editor });
      const c = s.contents.find((x) => x.id === i.content);
      Object.assign(c, { version: i.version, ...(status === 'published' && { published_version: i.version }) });
      const a = comment(i.project, 'activity', i.id, text);
      saved(i);
      say(`comments:${i.project}`, 'activity.created', { project: i.project, activity: a.id, item: i.id });
      if (status === 'published') say(`content:${i.content}`, 'content.published', { project: i.project, content: i.content, language: i.language, version: i.version });
    };
    const labels = { draft: 'Draft', in_review: 'In review', approved: 'Approved', published: 'Published' };
    const [, p1, p2, p3, p4, p5] = path.split('/');
    if (p1 === 'setup') return answer({ realtime: '/realtime', version: '0.2.0', node: node.name, editors: s.editors });
    if (p1 === 'state') return answer(s);
    if (p1 === 'token') return answer({ token: mint(m.editor, m.ttl ?? 600), expires_in: m.ttl ?? 600, sub: m.editor });
    if (p1 === 'projects' && !p2) return answer({ projects: s.projects.map((p) => project(p.id)) });
    if (p1 === 'projects' && p3 === 'items' && !p4) return answer({ project: project(p2), items: s.items.filter((i) => i.project === Number(p2)) });
    if (p1 === 'projects' && p3 === 'comments' && req.method === 'GET') return answer({ project: Number(p2), comments: s.comments.filter((c) => c.project === Number(p2)).reverse() });
    if (p1 === 'projects' && p3 === 'comments') {
      const c = comment(p2, 'comment', m.item ?? null, m.text.trim());
      say(`comments:${p2}`, 'comment.created', { project: Number(p2), comment: c.id, item: c.item });
      for (const e of s.editors) if (e.id !== m.editor && new RegExp(`@${e.id}\\b`).test(c.text)) notify(e.id, `${nameOf(m.editor)} mentioned you: “${c.text.slice(0, 80)}”`, Number(p2));
      return answer({ comment: c }, 201);
    }
    if (p1 === 'projects' && p3 === 'status') { touch(p2, m.editor); s.projects.find((p) => p.id === Number(p2)).status = m.status; say('projects', 'project.status', { project: Number(p2), status: m.status }); return answer({ project: project(p2) }); }
    const item = s.items.find((i) => i.id === p4);
    if (p5 === 'move') { move(item, m.status, `moved “${item.name}” to ${labels[m.status]}`); return answer({ item }); }
    if (p5 === 'approve') { const last = item.modified_by; move(item, 'approved', `approved “${item.name}”`); if (last !== m.editor) notify(last, `${nameOf(m.editor)} approved “${item.name}”.`, item.project); return answer({ item }); }
    if (p1 === 'content') {
      const c = s.contents.find((x) => x.id === p2);
      if (!p3) return answer(c);
      const i = s.items.find((x) => x.id === c.item);
      Object.assign(c, { ...(m.title && { title: m.title }), ...(m.teaser && { teaser: m.teaser }), version: c.version + 1, modified: now(), modified_by: m.editor });
      Object.assign(i, { name: c.title, version: c.version, modified: c.modified, modified_by: m.editor });
      say(`content:${c.id}`, 'content.saved', { project: c.project, content: c.id, language: c.language, version: c.version });
      saved(i);
      return answer({ content: c });
    }
    if (p1 === 'notify') return answer({ notification: notify(m.to, m.text, m.project ?? null) }, 201);
    if (p1 === 'notifications' && p2 === 'read') {
      for (const n of s.notifications) if (n.to === m.editor && (m.all || n.id === m.id)) n.read = true;
      if (m.all) say(`notifications:${m.editor}`, 'notification.read_all', { unread: 0 });
      else say(`notifications:${m.editor}`, 'notification.read', { notification: m.id, unread: unread(m.editor) });
      return answer({ unread: unread(m.editor) });
    }
    if (p1 === 'notifications') { const who = url.searchParams.get('editor'); return answer({ unread: unread(who), notifications: s.notifications.filter((n) => n.to === who) }); }
    return false;
  };
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const node = new FakeNode();
  node.handler = cms(node);
  await node.listen(Number(process.argv[2] ?? 0));
  console.log(`http://127.0.0.1:${node.port}/demo/`);
}
