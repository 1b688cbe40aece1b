// The script of every admin page. On the sign-in page there is nothing to do.
if (document.getElementById('wagtail-sidebar')) import('./live.js');
