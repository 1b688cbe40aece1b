// Dojo and other AMD loaders: a plugin that loads an ES module. Put it beside your AMD modules and depend on
//     'my/esm!/realtime/realtime.js'
define({
  load: function (url, require, done) {
    import(new URL(url, location.href).href).then(done, function (error) { console.error('carillon: ' + url + ' cannot be loaded', error); });
  },
});
