// Small helpers that the parts share.

export const settings = JSON.parse(document.getElementById('carillon-settings').textContent);

/** Asks Wagtail. An expired sign-in redirects to the sign-in page: that is no answer. */
export const ask = async (path, options = {}) => {
  const answer = await fetch(settings.base + path, { credentials: 'same-origin', redirect: 'manual', ...options });
  if (!answer.ok) throw new Error(`${path} answered ${answer.status || 'with a redirect'}`);
  return answer.json();
};

/** The token for this browser's sign-in; `null` when it is over. */
export const token = async () => {
  const answer = await fetch(`${settings.base}token/`, { credentials: 'same-origin', redirect: 'manual', headers: { Accept: 'text/plain' } });
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

/** Runs `load` once per burst of calls: never twice at a time, and once more where it was called meanwhile. */
export const once = (load) => {
  let running = false;
  let again = false;
  return async () => {
    again = true;
    if (running) return;
    running = true;
    while (again) {
      again = false;
      try { await load(); } catch (error) { console.warn('carillon:', error.message); }
    }
    running = false;
  };
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
  if (action) box.append(element('button', { type: 'button', textContent: action.label, onclick: action.act }));
};
