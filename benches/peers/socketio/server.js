// Socket.IO with the Redis adapter: rooms are topics, and POST /publish emits to one. It has no history in Redis.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.INSTALLED, "package.json"));
const { createAdapter } = require("@socket.io/redis-adapter");
const { createClient } = require("redis");
const { Server } = require("socket.io");

const publisher = createClient({ url: process.env.REDIS });
const subscriber = publisher.duplicate();
await Promise.all([publisher.connect(), subscriber.connect()]);

// Engine.IO answers its own path, and leaves the rest to this.
const server = createServer((request, answer) => {
  let body = "";
  request.on("data", (piece) => (body += piece));
  request.on("end", () => {
    for (const { topic, event } of JSON.parse(body)) io.to(topic).emit("event", topic, event);
    answer.end("{}");
  });
});
server.keepAliveTimeout = 600_000;
const io = new Server(server, {
  adapter: createAdapter(publisher, subscriber),
  httpCompression: false,
  path: "/socket.io/",
  perMessageDeflate: false,
  pingInterval: 3_600_000,
  serveClient: false,
  transports: ["websocket"],
});
// As its documents say for little memory: the first request of a session is not kept.
io.engine.on("connection", (raw) => (raw.request = null));
io.on("connection", (socket) => socket.on("follow", (topics, done) => (socket.join(topics), done())));
server.listen(Number(process.env.PORT), "127.0.0.1");
