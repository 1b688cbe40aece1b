//! What a tab keeps from page to page: its name, and which transport worked.

import { wall } from './protocol.js';

const NAME = 'carillon-tab', WORKED = 'carillon';
let mine = '';

const stored = (what) => { try { return what(sessionStorage); } catch { return null; } };

/**
 * The tab's part of the client id. While a page has it, the storage does not: a duplicated tab copies the storage, and
 * finds none there.
 */
export function tabId() {
  if (mine) return mine;
  mine = stored((s) => s.getItem(NAME)) || `tab-${Math.random().toString(36).slice(2, 10)}`;
  const claim = () => stored((s) => s.removeItem(NAME));
  claim();
  const { addEventListener: on } = globalThis;
  on?.('pagehide', () => stored((s) => s.setItem(NAME, mine)));
  on?.('pageshow', claim);
  return mine;
}

/** What worked last in this tab, for its next page. */
export function remembered() {
  const [kind, until] = (stored((s) => s.getItem(WORKED)) ?? '').split(' ');
  if (Number(until) > wall()) return kind;
}

export function remember({ state, transport }) {
  if (state === 'live') stored((s) => s.setItem(WORKED, `${transport} ${wall() + 600_000}`));
}
