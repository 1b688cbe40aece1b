// A publisher on the package `redis`: one order per line of stdin, one answer per line of stdout, in order.
//   {"recorded":true,"channel":"carillon:comments:42","function":"carillon_publish","event":"<json>"}
//   -> {"reply":"1732…-1"} or {"reply":3} (PUBLISH: receivers) or {"error":"…"}
'use strict';
const { createClient } = require('redis');
const readline = require('node:readline');
const { readFileSync } = require('node:fs');

(async () => {
  const [url, ...files] = process.argv.slice(2);
  const [ca, cert, key] = files.map((file) => readFileSync(file));
  const client = createClient({ url, ...(ca && { socket: { tls: true, ca, cert, key } }) });
  client.on('error', () => {});
  await client.connect();
  let last = Promise.resolve();
  const publish = async (order) => {
    try {
      const command = order.recorded
        ? ['FCALL', order.function, '1', order.channel, order.event]
        : ['PUBLISH', order.channel, order.event];
      return { reply: await client.sendCommand(command) };
    } catch (error) {
      return { error: error.message };
    }
  };
  readline.createInterface({ input: process.stdin }).on('line', (line) => {
    last = last.then(() => publish(JSON.parse(line))).then((answer) => process.stdout.write(JSON.stringify(answer) + '\n'));
  }).on('close', () => last.then(() => process.exit(0)));
})();
