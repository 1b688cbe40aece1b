// The explorer and the dashboard: what stands there is fetched again and put in place.

import { ask, once, settings } from './page-tools.js';

/** Replaces parts of this page by what the same address shows now. */
const refresh = (selector) => once(async () => {
  const answer = await fetch(location.href, { credentials: 'same-origin', redirect: 'manual' });
  if (!answer.ok) throw new Error(`${location.pathname} answered ${answer.status || 'with a redirect'}`);
  const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html').querySelectorAll(selector);
  document.querySelectorAll(selector).forEach((old, index) => {
    if (fresh[index] && !old.contains(document.activeElement)) old.replaceWith(document.adoptNode(fresh[index]));
  });
});

/** Watches the listing of an explorer page, or the dashboard. */
export const watchListing = async (rt) => {
  const listing = location.pathname.match(/\/pages\/(\d+)\/$/)?.[1];
  if (listing) {
    const { topics } = await ask(`pages/${listing}/topics/`);
    const load = refresh('#listing-results');
    rt.on(topics.at(-1), load);
    rt.onResync(topics.at(-1), ({ reason }) => reason !== 'subscribed' && load());
  } else if (location.pathname === settings.admin) {
    const load = refresh('.w-dashboard section, main section.panel');
    rt.onStatus(({ user }) => {
      if (!user || load.following) return;
      load.following = true;
      const topic = rt.constructor.topic('notifications', user);
      rt.on(topic, load);
      rt.onResync(topic, ({ reason }) => reason !== 'subscribed' && load());
    });
  }
};
