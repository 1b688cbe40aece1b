// The explorer and the dashboard: what stands there is fetched again and put in place.

import { ask, fetched, note, reader, settings } from './page-tools.js';

/** Whether somebody works in it: it is not changed under their hands. */
const isUsed = (place) => place.contains(document.activeElement) || place.querySelector('input[type=checkbox]:checked') !== null;

/** Makes a reader that puts what `fetch` gives in place with `show`, at once or when the editor says so. */
const renewed = (place, fetch, show) => reader(async () => {
  const fresh = await fetch();
  const put = () => { show(fresh); note('carillon-listing', ''); };
  if (isUsed(place())) note('carillon-listing', 'Something has changed here.', { label: 'Show', act: put });
  else put();
});

const parsed = (text) => new DOMParser().parseFromString(text, 'text/html');

const watchExplorer = async (rt, page) => {
  const topic = page ? (await ask(`pages/${page}/topics/`)).topics.at(-1) : 'tree:root';
  const place = () => document.getElementById('listing-results');
  const load = renewed(
    place,
    async () => (await fetched(`${location.pathname}results/${location.search}`)).text(),
    (text) => { place().replaceChildren(...parsed(text).body.childNodes); },
  );
  rt.on(topic, load);
  rt.onResync(topic, load);
};

const watchDashboard = (rt) => {
  const place = () => document.querySelector('.w-dashboard');
  const panels = (dashboard) => [...dashboard.children].filter(({ localName }) => localName !== 'header');
  const load = renewed(
    place,
    async () => parsed(await (await fetched(location.href)).text()).querySelector('.w-dashboard'),
    (fresh) => {
      panels(place()).forEach((panel) => panel.remove());
      place().append(...panels(fresh));
    },
  );
  let user = null;
  rt.onStatus((status) => {
    if (!status.user || status.user === user) return;
    user = status.user;
    const topic = rt.constructor.topic('notifications', user);
    rt.on(topic, ({ type }) => { if (type !== 'notification.read_all') load(); });
    // The page has just come from Wagtail, but perhaps before this subscription began.
    rt.onResync(topic, load);
  });
};

/** Watches the listing of an explorer page, or the dashboard. */
export const watchListing = (rt) => {
  const explorer = location.pathname.match(/\/pages\/(?:(\d+)\/)?$/);
  if (explorer && document.getElementById('listing-results')) {
    const start = reader(() => watchExplorer(rt, explorer[1]));
    start();
  } else if (location.pathname === settings.admin) watchDashboard(rt);
};
