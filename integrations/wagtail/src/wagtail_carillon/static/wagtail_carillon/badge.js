// The badge: whether this page shows what is true. It never says "live", which editors read as "published".

import { element, onUnread, readAgain, unreadSince } from './page-tools.js';

const REASONS = { 'signed-out': 'Signed out', forbidden: 'Signed out or no longer allowed', token: 'Sign-in cannot be checked' };

const clock = (since) => new Date(since).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });

/** The state that counts, and what the badge says. */
const shown = ({ state, since, reason, late }) => {
  if (state === 'connecting') return [state, 'Connecting…'];
  if (state === 'off') return [state, `${REASONS[reason] ?? 'Not connected'}: reload to see changes`];
  if (state === 'stale') return [state, `Not in sync since ${clock(since)}`];
  // Told of a change, but Wagtail has not answered what it is.
  if (unreadSince()) return ['stale', `Not in sync since ${clock(unreadSince())}`];
  if (late?.length) return ['late', `Changes made through ${late.map(({ source }) => source).join(', ')} may be late`];
  return [state, 'In sync'];
};

/** Puts the badge into the page and keeps it true. */
export const showBadge = (rt) => {
  const badge = element('button', { type: 'button', className: 'carillon-badge', onclick: () => location.reload() });
  const status = element('span');
  status.setAttribute('role', 'status');
  badge.append(status);
  document.body.append(badge);
  let now = null;
  const show = () => {
    if (!now) return;
    const [state, text] = shown(now);
    badge.dataset.state = state;
    badge.title = [now.transport, now.node, now.reason].filter(Boolean).join(' · ');
    status.textContent = text;
  };
  rt.onStatus((status) => {
    const isBack = status.state === 'live' && now?.state !== 'live';
    now = status;
    show();
    if (isBack) readAgain();
  });
  onUnread(show);
};
