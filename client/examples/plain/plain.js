// Plain JavaScript: a badge and a list that stays current. Nothing to build.
import { Realtime } from '/realtime/realtime.js';

const rt = new Realtime({ token: async () => (await (await fetch('/cms/token')).json()).token });

rt.onStatus(({ state, transport }) => {
  document.querySelector('#badge').textContent = state === 'live' ? `live by ${transport}` : state;
});

let latest = 0;
async function load() {
  const mine = ++latest;
  const { comments } = await (await fetch('/cms/projects/42/comments')).json();
  if (mine !== latest) return;       // a later read is under way: it knows more
  document.querySelector('#comments').replaceChildren(...comments.map((comment) => {
    const item = document.createElement('li');
    item.textContent = comment.text;
    return item;
  }));
}

rt.on('comments:42', load);          // something changed: read it again
rt.onResync('comments:42', load);    // at the start, and whenever something may have been missed
