// Wagtail's admin, kept up to date. Events only say that it is time to read something again.

import { settings, token } from './page-tools.js';
import { showBadge } from './badge.js';
import { showBell } from './bell.js';
import { watchEditor } from './editor.js';
import { watchListing } from './listing.js';

// Not relative to this file: static files may lie on another host.
const { Realtime } = await import(new URL(`${settings.url}/realtime.js`, document.baseURI).href);
const rt = new Realtime({ url: settings.url, token });

showBadge(rt);
showBell(rt, Realtime);
watchEditor(rt);
watchListing(rt);

// For people who debug, and for tests.
window.carillon = { rt };
