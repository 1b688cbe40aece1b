// The page that is being edited: newer versions, moves, locks, deletion, and comments in place.

import { ask, element, note, once } from './page-tools.js';

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

  constructor(rt, page, form) {
    this.#rt = rt;
    this.#page = page;
    this.#form = form;
    form.append(element('input', { type: 'hidden', name: 'carillon_origin', value: rt.id }));
    this.readState = once(() => this.#readState());
    this.readComments = once(() => this.#readComments());
    document.addEventListener('w-autosave:success', () => { this.readState(); this.readComments(); }, { signal: this.#following.signal });
  }

  leave() { this.#following.abort(); }

  async #readState() {
    const now = await ask(`pages/${this.#page}/state/`);
    if (!now.exists) { note('carillon-gone', 'This page has been deleted.'); return; }
    this.#follow(now.topics);
    this.#first ??= now;
    this.#showVersion(now);
    note('carillon-moved', now.url_path !== this.#first.url_path && `This page has another address now: ${now.url_path}`, RELOAD);
    const locked = now.locked !== this.#first.locked;
    note('carillon-locked', locked && (now.locked ? now.lock_message || 'This page has been locked.' : 'This page is no longer locked.'), RELOAD);
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
    for (const topic of [content, ...tree]) {
      this.#rt.on(topic, this.readState, { signal });
      this.#rt.onResync(topic, this.readState, { signal });
    }
    this.#rt.on(comments, this.readComments, { signal });
    this.#rt.onResync(comments, this.readComments, { signal });
  }

  #showVersion(now) {
    const form = this.#form;
    const autosaved = form.dataset.wAutosaveRevisionIdValue;
    const mine = autosaved && autosaved !== '0' ? autosaved : form.elements.namedItem('loaded_revision_id')?.value;
    let newer = now.revision && mine && String(now.revision) !== String(mine);
    if (newer && now.hash === form.dataset.carillonHash) {
      // Only comments are new. Wagtail saves them with the page, so this form goes on from that revision.
      for (const place of [form, document.querySelector('form.w-editing-sessions')]) {
        setField(place, 'loaded_revision_id', now.revision);
        setField(place, 'loaded_revision_created_at', now.revision_created_at);
        setField(place, 'revision_id', now.revision);
        setField(place, 'revision_created_at', now.revision_created_at);
      }
      newer = false;
    }
    if (!newer) form.dataset.carillonHash = now.hash;
    const verb = now.revision === now.live_revision ? 'published' : 'saved';
    note('carillon-newer', newer && `${now.by} ${verb} a new version.`, RELOAD);
  }

  async #readComments() {
    const app = window.comments?.commentApp;
    if (!app) return;
    const data = await ask(`pages/${this.#page}/comments/`);
    const shown = [...app.store.getState().comments.comments.values()];
    const isOpen = (comment) => comment.mode !== 'default' || comment.newReply || (comment.remoteId === null && !comment.deleted) ||
      [...comment.replies.values()].some((reply) => reply.remoteId === null || reply.mode !== 'default');
    if (shown.some(isOpen)) { note('carillon-comments', 'There are new comments. They show when yours is saved.'); return; }
    note('carillon-comments', '');
    app.updateData({ ...data, comments: data.comments.filter((comment) => !comment.resolved) });
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
    editor.readState();
  };
  look();
  document.addEventListener('w-autosave:success', look);
};
