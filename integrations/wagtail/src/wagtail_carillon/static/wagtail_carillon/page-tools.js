// Small helpers that the parts share.

export const settings = JSON.parse(document.getElementById('carillon-settings').textContent);

/** Where Wagtail answered something else than what was asked. `status` 0: it redirects to the sign-in page. */
class WrongAnswer extends Error {
  constructor(path, status) {
    super(`${path} answered ${status || 'with a redirect'}`);
    this.status = status;
  }
}

/** Asks Wagtail. An expired sign-in redirects to the sign-in page: that is no answer. */
export const fetched = async (path, options = {}) => {
  const answer = await fetch(path, { credentials: 'same-origin', redirect: 'manual', ...options });
  if (!answer.ok) throw new WrongAnswer(path, answer.status);
  return answer;
};
export const ask = async (path, options) => (await fetched(settings.base + path, options)).json();

/** The token for this browser's sign-in; `null` when it is over. The pages that are open are named: some are granted one by one. */
export const token = async ({ topics = [] } = {}) => {
  const pages = topics.filter((topic) => topic.startsWith('content:')).map((topic) => ['topic', topic]);
  const answer = await fetch(`${settings.base}token/?${new URLSearchParams(pages)}`, { credentials: 'same-origin', redirect: 'manual', headers: { Accept: 'text/plain' } });
  if (answer.type === 'opaqueredirect' || answer.status === 401 || answer.status === 403) return null;
  if (!answer.ok) throw new Error(`the token view answered ${answer.status}`);
  return answer.text();
};

export const csrf = () => JSON.parse(document.getElementById('wagtail-config').textContent).CSRF_TOKEN;

export const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

/** An icon of Wagtail's sprite. */
export const icon = (name) => {
  const drawn = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  drawn.setAttribute('class', `icon icon-${name}`);
  drawn.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `#icon-${name}`);
  drawn.append(use);
  return drawn;
};

const wait = (ms) => new Promise((go) => { setTimeout(go, ms); });

/** Events of one change come together: one answer serves all of them. */
const BURST_MS = 20;
const LONGEST_PAUSE_MS = 30_000;

// What could not be read, and since when: while there is something in here, this page may show what is no longer true.
const unread = new Map();
const listeners = new Set();
const tell = () => listeners.forEach((listener) => listener());

/** Since when something could not be read, as a Date; `null` where all is read. */
export const unreadSince = () => [...unread.values()].sort((a, b) => a - b)[0] ?? null;
export const onUnread = (listener) => { listeners.add(listener); };
/** Tries again what could not be read: the editor may have signed in meanwhile. */
export const readAgain = () => { for (const read of [...unread.keys()]) read(); };

/**
 * Makes a reader of `load`: it runs once per burst of calls, never twice at a time, and again where it was called meanwhile.
 * A failure is tried again until it succeeds, with growing pauses, unless trying again cannot help; the badge says so meanwhile.
 */
export const reader = (load) => {
  let running = false;
  let again = false;
  const failed = (error) => {
    if (!unread.has(read)) console.warn('carillon:', error.message);
    unread.set(read, unread.get(read) ?? new Date());
    tell();
    // Signed out, or no longer allowed: only the editor can change that.
    return error.status === undefined || error.status >= 500 || error.status === 429;
  };
  const run = async () => {
    let pause = 500;
    while (again) {
      await wait(BURST_MS);
      again = false;
      try {
        await load();
        pause = 500;
        if (unread.delete(read)) tell();
      } catch (error) {
        if (!failed(error)) continue;
        again = true;
        await wait(pause * (0.5 + Math.random()));
        pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
      }
    }
    running = false;
  };
  const read = () => {
    again = true;
    if (running) return;
    running = true;
    run();
  };
  return read;
};

/** A note above the form, or none where `text` is empty. */
export const note = (id, text, action) => {
  let box = document.getElementById(id);
  if (!text) { box?.remove(); return; }
  if (!box) {
    box = element('div', { id, className: 'carillon-note' });
    box.setAttribute('role', 'status');
    document.querySelector('main')?.prepend(box);
  }
  box.replaceChildren(element('span', { textContent: text }));
  if (action) box.append(element('button', { type: 'button', className: 'button button-small button-secondary', textContent: action.label, onclick: action.act }));
};
