// The bell: notifications of the editor, with a list that is read again from Wagtail.

import { ask, csrf, element, icon, reader, settings } from './page-tools.js';

/** Puts the bell into the page once it is known who is signed in. */
export const showBell = (rt, Realtime) => {
  const count = element('span');
  const bell = element('button', { type: 'button', className: 'carillon-bell', hidden: true }, icon('carillon-bell'), count);
  bell.setAttribute('aria-expanded', 'false');
  document.body.append(bell);
  const show = (unread) => {
    bell.hidden = false;
    bell.dataset.unread = unread;
    count.textContent = unread || '';
    bell.setAttribute('aria-label', unread === 1 ? '1 unread notification' : `${unread} unread notifications`);
  };
  const load = reader(async () => show((await ask('bell/')).unread));

  let user = null;
  rt.onStatus((status) => {
    if (!status.user || status.user === user) return;
    user = status.user;
    const topic = Realtime.topic('notifications', user);
    rt.on(topic, ({ type, data }) => {
      if (!type.startsWith('notification.')) return;
      if (Number.isInteger(data?.unread)) show(data.unread);
      else load();
    });
    rt.onResync(topic, load);
  });

  bell.onclick = async () => {
    const open = document.querySelector('.carillon-list');
    bell.setAttribute('aria-expanded', String(!open));
    if (open) { open.remove(); return; }
    const list = element('ul', { className: 'carillon-list' });
    document.body.append(list);
    try {
      const { items } = await ask('bell/');
      for (const item of items) {
        const text = item.page ? element('a', { href: `${settings.admin}pages/${item.page}/edit/`, textContent: item.text }) : item.text;
        list.append(element('li', { className: item.read ? '' : 'carillon-unread' }, text));
      }
      if (!items.length) list.append(element('li', { textContent: 'Nothing yet' }));
      show((await ask('bell/', { method: 'POST', headers: { 'X-CSRFToken': csrf() } })).unread);
    } catch (error) {
      list.append(element('li', { textContent: `The notifications cannot be read now (${error.message}).` }));
    }
  };
};
