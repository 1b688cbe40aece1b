// The badge: whether this page shows what is true. It never says "live", which editors read as "published".

import { element } from './page-tools.js';

const REASONS = { 'signed-out': 'Signed out', token: 'Sign-in cannot be checked' };

const textOf = ({ state, since, reason, late }) => {
  const time = new Date(since).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  if (state === 'connecting') return 'Connecting…';
  if (state === 'off') return `${REASONS[reason] ?? 'Not connected'}: reload to see changes`;
  if (state === 'stale') return `Not in sync since ${time}`;
  if (late?.length) return `Changes made through ${late.map(({ source }) => source).join(', ')} may be late`;
  return 'In sync';
};

/** Puts the badge into the page and keeps it true. */
export const showBadge = (rt) => {
  const badge = element('button', { type: 'button', className: 'carillon-badge', onclick: () => location.reload() });
  const status = element('span');
  status.setAttribute('role', 'status');
  badge.append(status);
  document.body.append(badge);
  rt.onStatus((now) => {
    badge.dataset.state = now.state === 'live' && now.late?.length ? 'late' : now.state;
    badge.title = [now.transport, now.node, now.reason].filter(Boolean).join(' · ');
    status.textContent = textOf(now);
  });
};
