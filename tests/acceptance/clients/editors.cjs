// Editors on the package `ws`, many in one process. Told what to do by JSON lines on stdin, tells what happens by JSON
// lines on stdout; knows nothing of what should happen.
//   {"op":"open","id":"n1","url":"ws://…","headers":{},"protocols":[],"first":{…}}   {"op":"send","id":"n1","message":{…}}
//   {"op":"close","id":"n1"}
//   -> {"id":"n1","open":"<sub-protocol>"}  {"id":"n1","message":{…}}  {"id":"n1","closed":[code,"reason"]}
//      {"id":"n1","refused":"…"}
'use strict';
const WebSocket = require('ws');
const readline = require('node:readline');

const sockets = new Map();
const say = (what) => process.stdout.write(JSON.stringify(what) + '\n');

function open({ id, url, headers, protocols, first }) {
  const socket = new WebSocket(url, protocols || [], { headers });
  sockets.set(id, socket);
  socket.on('open', () => {
    say({ id, open: socket.protocol });
    if (first) socket.send(JSON.stringify(first));
  });
  socket.on('message', (data, binary) => {
    if (binary) say({ id, binary: data.length });
    else say({ id, message: JSON.parse(data.toString('utf8')) });
  });
  socket.on('close', (code, reason) => say({ id, closed: [code, reason.toString('utf8')] }));
  socket.on('error', (error) => say({ id, refused: error.message }));
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const told = JSON.parse(line);
  const socket = sockets.get(told.id);
  if (told.op === 'open') open(told);
  else if (told.op === 'send') socket.send(JSON.stringify(told.message));
  else if (told.op === 'close') socket.close();
}).on('close', () => process.exit(0));
