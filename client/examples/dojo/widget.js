// A Dojo widget's worth of it: subscribe, then load, then apply.
define(['dojo/dom', 'dojo/request', './esm!/realtime/realtime.js'], function (dom, request, carillon) {
  var rt = new carillon.Realtime({
    token: function () { return request('/cms/token', { handleAs: 'json' }).then(function (answer) { return answer.token; }); },
  });
  var latest = 0;
  function load() {
    var mine = ++latest;
    request('/cms/projects/42/comments', { handleAs: 'json', preventCache: true }).then(function (answer) {
      if (mine !== latest) return; // a later read is under way: it knows more
      dom.byId('comments').textContent = answer.comments.map(function (comment) { return comment.text; }).join('\n');
    });
  }
  rt.onStatus(function (status) { dom.byId('badge').textContent = status.state; });
  rt.on('comments:42', load);
  rt.onResync('comments:42', load);
  return rt;
});
