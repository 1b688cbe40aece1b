// The page that is being edited: newer versions, moves, locks, deletion, and comments in place.

import { ask, element, note, reader } from './page-tools.js';

const reload = () => {
  window.addEventListener('w-unsaved:confirm', (event) => event.preventDefault(), { once: true });
  location.reload();
};
const RELOAD = { label: 'Reload', act: reload };
const setField = (form, name, value) => {
  const field = form?.elements.namedItem(name);
  if (field) field.value = value;
};

class Editor {
  #rt;
  #page;
  #form;
  #following = new AbortController();
  #followed = '';
  #first = null;
  #hash = null;
  #wantsComments = true;
  #refused = null;

  constructor(rt, page, form) {
    this.#rt = rt;
    this.#page = page;
    this.#form = form;
    const { signal } = this.#following;
    form.append(element('input', { type: 'hidden', name: 'carillon_origin', value: rt.id }));
    this.read = reader(() => this.#read());
    document.addEventListener('w-autosave:success', () => this.#saved(), { signal });
    // Refused because somebody else saved meanwhile: if they only commented, it can be saved after all.
    document.addEventListener('w-autosave:deactivated', ({ detail }) => { this.#refused = detail?.trigger ?? {}; this.read(); }, { signal });
  }

  leave() { this.#following.abort(); }

  #saved() {
    // What this form says now is what its own revision holds, which the next answer is compared with.
    this.#hash = null;
    if (this.#wantsComments) this.read();
  }

  async #read() {
    const asked = new URLSearchParams();
    if (this.#own) asked.set('mine', this.#own);
    const withComments = this.#wantsComments && window.comments?.commentApp;
    if (withComments) asked.set('comments', '1');
    let now;
    try {
      now = await ask(`pages/${this.#page}/state/?${asked}`);
    } catch (error) {
      if (error.status === 404) note('carillon-gone', 'You may no longer edit this page.');
      throw error;
    }
    if (!now.exists) { note('carillon-gone', 'This page has been deleted.'); return; }
    note('carillon-gone', '');
    this.#follow(now.topics);
    this.#first ??= now;
    this.#showVersion(now);
    note('carillon-moved', now.url_path !== this.#first.url_path && `This page has another address now: ${now.url_path}`, RELOAD);
    const locked = now.locked !== this.#first.locked;
    note('carillon-locked', locked && (now.locked ? now.lock_message || 'This page has been locked.' : 'This page is no longer locked.'), RELOAD);
    if (withComments) this.#showComments(now.comments);
  }

  /** The revision that this form's autosave has made, and overwrites. */
  get #own() {
    const own = this.#form.dataset.wAutosaveRevisionIdValue;
    return own && own !== '0' ? own : null;
  }

  /** Follows the page where it stands. After a move its topics are others. */
  #follow({ content, comments, tree }) {
    const key = JSON.stringify([content, comments, tree]);
    if (key === this.#followed) return;
    this.#followed = key;
    this.stop?.abort();
    this.stop = new AbortController();
    const { signal } = this.stop;
    this.#following.signal.addEventListener('abort', () => this.stop.abort(), { once: true });
    // Further up, only what happens to an ancestor itself concerns this page, and not what happens to its sisters.
    const above = new Set(content.replace(/^.*?:/, '').split('/').slice(0, -1).map(Number));
    for (const topic of tree) {
      this.#rt.on(topic, ({ data }) => { if (above.has(data?.page)) this.read(); }, { signal });
      this.#rt.onResync(topic, this.read, { signal });
    }
    this.#rt.on(content, this.read, { signal });
    this.#rt.onResync(content, this.read, { signal });
    const readComments = () => { this.#wantsComments = true; this.read(); };
    this.#rt.on(comments, readComments, { signal });
    this.#rt.onResync(comments, readComments, { signal });
  }

  #showVersion(now) {
    const form = this.#form;
    const loaded = form.elements.namedItem('loaded_revision_id')?.value;
    const loadedAt = form.elements.namedItem('loaded_revision_created_at')?.value;
    // An autosave of somebody else overwrites their revision: its number stays, its time does not.
    const known = this.#own ?? loaded;
    let newer = Boolean(now.revision && known) && (String(now.revision) !== String(known) ||
      (!this.#own && Boolean(loadedAt) && loadedAt !== now.revision_created_at));
    const hash = (this.#own && now.mine_hash) || this.#hash;
    if (newer && now.hash === hash) {
      this.#adopt(now);
      newer = false;
    }
    if (!newer) this.#hash = now.hash;
    const verb = now.revision === now.live_revision ? 'published' : 'saved';
    note('carillon-newer', newer && `${now.by} ${verb} a new version.`, RELOAD);
  }

  /** Only comments are new. Wagtail saves them with the page, so this form goes on from that revision. */
  #adopt(now) {
    const form = this.#form;
    // The next save makes a revision of its own instead of overwriting one that is no longer the newest.
    if (this.#own) form.dataset.wAutosaveRevisionIdValue = '0';
    for (const place of [form, document.querySelector('form.w-editing-sessions')]) {
      setField(place, 'loaded_revision_id', now.revision);
      setField(place, 'loaded_revision_created_at', now.revision_created_at);
      setField(place, 'revision_id', now.revision);
      setField(place, 'revision_created_at', now.revision_created_at);
    }
    if (!this.#refused) return;
    form.dataset.wAutosaveActiveValue = 'true';
    form.dispatchEvent(new CustomEvent('w-unsaved:add', { bubbles: true, cancelable: true, detail: this.#refused.detail ?? {} }));
    this.#refused = null;
  }

  #showComments(data) {
    const app = window.comments.commentApp;
    const shown = [...app.store.getState().comments.comments.values()];
    const isOpen = (comment) => comment.mode !== 'default' || comment.newReply || (comment.remoteId === null && !comment.deleted) ||
      [...comment.replies.values()].some((reply) => reply.remoteId === null || reply.mode !== 'default');
    if (shown.some(isOpen)) { note('carillon-comments', 'There are new comments. They show when yours is saved.'); return; }
    note('carillon-comments', '');
    this.#wantsComments = false;
    const comments = data.comments.filter((comment) => !comment.resolved);
    const same = (mine, theirs) => JSON.stringify(mine) === JSON.stringify(theirs);
    const have = shown.filter(({ deleted, resolved }) => !deleted && !resolved)
      .map(({ remoteId, text, replies }) => [remoteId, text, [...replies.values()].filter(({ deleted }) => !deleted).map((reply) => [reply.remoteId, reply.text])]);
    const want = comments.map(({ pk, text, replies }) => [pk, text, replies.map((reply) => [reply.pk, reply.text])]);
    if (!same(have, want)) app.updateData({ ...data, comments });
  }
}

/** Watches the page that is open in the editor. A new page gets its address with its first autosave. */
export const watchEditor = (rt) => {
  let editor = null;
  let page = null;
  const look = () => {
    const found = location.pathname.match(/\/pages\/(\d+)\/edit\/$/)?.[1];
    const form = document.querySelector('form[data-edit-form]');
    if (!found || !form || found === page) return;
    editor?.leave();
    page = found;
    editor = new Editor(rt, page, form);
    editor.read();
  };
  look();
  document.addEventListener('w-autosave:success', look);
};
