"""What the function library costs Redis, for benches/figures: a recorded publish beside the least that could do it, the worst
events, and the end of a topic's log.

The figures are Redis' own (`INFO commandstats`): the time inside the call. `carillon redis-function` prints the library, so nothing
but a redis-server and the program is needed. Must not know nodes.
"""

import json
import socket
import statistics
import subprocess
import time

PREFIX = "carillon"
# What an event is at most by default.
MOST = 65536
# HGET of the id, XADD, HSET, PUBLISH in one step: no recorded publish that recognises duplicates does less.
LEAST = """#!lua name=least
redis.register_function('least', function(keys, args)
  local call = redis.call
  if not call('HGET', keys[2], args[2]) then
    local id = call('XADD', keys[1], 'MAXLEN', 1000, '*', 'event', args[1])
    call('HSET', keys[2], args[2], id)
    call('PUBLISH', keys[1], id .. ' ' .. args[1])
    return id
  end
end)"""


class Client:
    """A connection to Redis, without a library."""

    def __init__(self, port):
        until = time.monotonic() + 10
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                # It has only just been started.
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        self.lines = self.socket.makefile("rb")

    def send(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        parts = [b"*%d\r\n" % len(words)] + [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        self.socket.sendall(b"".join(parts))

    def answer(self):
        line = self.lines.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise SystemExit(f"functions: Redis said {rest.decode()}")
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        if kind == b"$":
            return None if rest == b"-1" else self.lines.read(int(rest) + 2)[:-2]
        return rest

    def ask(self, *words):
        self.send(*words)
        return self.answer()

    def cost(self, asked, batch=50):
        """Microseconds that Redis takes for one of these calls, by its own count."""
        return self.costs({"": (asked, self)}, batch)[""]

    def costs(self, ways, batch=50):
        """The same for several ways, each a list of calls and who makes them; small batches take turns.

        It is the median of batches, because Redis counts the time on the clock: where the machine does something else meanwhile, that
        is in it, and in the batches of other ways as well.
        """
        found = {way: [] for way in ways}
        for begin in range(0, max(len(asked) for asked, _ in ways.values()), batch):
            for way, (asked, by) in ways.items():
                some = asked[begin : begin + batch]
                self.ask("CONFIG", "RESETSTAT")
                for words in some:
                    by.send(*words)
                for _ in some:
                    by.answer()
                stats = self.ask("INFO", "commandstats").decode()
                line = next(line for line in stats.splitlines() if line.startswith("cmdstat_fcall:"))
                found[way].append(int(line.split("usec=")[1].split(",")[0]) / len(some))
        return {way: statistics.median(costs) for way, costs in found.items()}


def event(number, more=""):
    """An event of 240 bytes, with id and source."""
    head = {"type": "comment.created", "id": f"01J{number:023}", "source": "/cms/editor", "data": {"text": more}}
    head["data"]["text"] += "x" * (240 - len(json.dumps(head, separators=(",", ":"))))
    return json.dumps(head, separators=(",", ":"))


def filled(piece, begin='"data":[', end="]", between=","):
    """The largest event that repeats this piece."""
    head = f'{{"type":"a.b",{begin}'
    room = MOST - len(head) - len(end) - 1
    count = (room + len(between.encode())) // len((piece + between).encode())
    return head + between.join([piece] * count) + end + "}"


ASCII = {
    "numbers of one digit": filled("1"),
    "long numbers": filled("1234567890123456"),
    "fractions": filled("-1.5"),
    "large exponents": filled("1e100"),
    "the largest exponents": filled("1e300"),
    "empty objects": filled("{}"),
    "empty lists": filled("[]"),
    "small members": filled('"abcd":1', '"data":{', "}"),
    "empty strings": filled('""'),
    "escapes": filled("\\n", '"data":"', '"', ""),
    "escapes of letters": filled("\\u00e4", '"data":"', '"', ""),
    "one string": filled("x", '"data":"', '"', ""),
    "blanks": filled(" ", '"data":[', "]", ""),
    "a number in each line": filled("1", between=",\n"),
    "nested 60 levels deep": filled("[" * 60 + "]" * 60),
    "nested 6 levels deep": filled("[" * 6 + "]" * 6),
    "lists of two lists, 4 levels deep": filled("[[[[],[]],[[],[]]],[[[],[]],[[],[]]]]"),
}
OTHER = {
    "letters of two bytes": filled("ä", '"data":"', '"', ""),
    "letters of three bytes": filled("漢", '"data":"', '"', ""),
    "letters of four bytes": filled("😀", '"data":"', '"', ""),
    "letters of all lengths": filled("aä漢😀", '"data":"', '"', ""),
    "short words with umlauts": filled('"für"'),
    "umlauts and escapes": filled("ä\\n", '"data":"', '"', ""),
    "numbers beside an umlaut": filled("1", '"ä":1,"data":['),
}


def load(client, program, *options):
    library = subprocess.run([str(program), "redis-function", *options], stdout=subprocess.PIPE, check=True).stdout
    client.ask("FUNCTION", "LOAD", "REPLACE", library)


def publisher(client, port, program):
    """A connection of the user whom `carillon redis-function --acl` prints for publishers."""
    printed = subprocess.run([str(program), "redis-function", "--acl"], stdout=subprocess.PIPE, text=True, check=True).stdout
    rule = next(line for line in printed.splitlines() if "-publisher " in line).split()
    password = next(word for word in rule if word.startswith(">"))
    client.ask(*rule)
    user = Client(port)
    user.ask("AUTH", rule[2], password[1:])
    return user


def publish(client, user, rounds=25, each=1000):
    """Microseconds per call, by way; the ways take turns. `user`: who publishes as `printed`, which Redis checks for each step."""
    client.ask("FUNCTION", "LOAD", "REPLACE", LEAST)
    ways = {"least": [], "ours": [], "again": [], "printed": [], "least printed": []}
    for number in range(rounds + 1):
        events = [event(number * each + one) for one in range(each)]
        topic = f"{PREFIX}:comments:{number % 5}"
        ours = [("FCALL", f"{PREFIX}_publish", 1, topic, text) for text in events]
        least, least_printed = (
            [("FCALL", "least", 2, log, f"{PREFIX}:ids:{{{log}}}", text, json.loads(text)["id"]) for text in events]
            for log in (f"{PREFIX}:comments:least", f"{PREFIX}:comments:least-printed")
        )
        later = [event((rounds + 1 + number) * each + one) for one in range(each)]
        printed = [("FCALL", f"{PREFIX}_publish", 1, topic, text) for text in later]
        costs = client.costs(
            {
                "least": (least, client),
                "ours": (ours, client),
                "printed": (printed, user),
                "least printed": (least_printed, user),
            }
        )
        costs["again"] = client.cost(ours)
        # The first round warms up.
        for way, cost in costs.items() if number else ():
            ways[way].append(cost)
    return ways


def worst(client, kinds, rounds=12):
    """Milliseconds per call for events of 64 KB, by kind."""
    found = {}
    for name, text in kinds.items():
        assert MOST - 200 < len(text.encode()) <= MOST, f"{name}: {len(text.encode())} bytes"
        ask = [("FCALL", f"{PREFIX}_publish", 1, f"{PREFIX}:comments:large", text)]
        found[name] = [client.cost(ask * 5, batch=1) / 1000 for _ in range(rounds)]
    return found


def heads(client, rounds=25, topics=100):
    """Microseconds per topic for the minute's look: of topics with events, and of quiet ones."""
    busy = [f"{PREFIX}:content:{n}" for n in range(topics)]
    quiet = [f"{PREFIX}:projects:{n}" for n in range(topics)]
    for number, topic in enumerate(busy):
        client.ask("FCALL", f"{PREFIX}_publish", 1, topic, event(number))
    # Earlier releases opened a log by looking at it.
    opens = f"{PREFIX}_open".encode() in str(client.ask("FUNCTION", "LIST")).encode()
    client.ask("FCALL", f"{PREFIX}_open" if opens else f"{PREFIX}_heads", topics, *quiet)
    found = {"busy": [], "quiet": []}
    for number in range(rounds + 1):
        for name, keys in (("busy", busy), ("quiet", quiet)):
            cost = client.cost([("FCALL", f"{PREFIX}_heads", topics, *keys, "look")] * 9, batch=1) / topics
            if number:
                found[name].append(cost)
    return found


def rows(port, program, spread):
    """The rows of the table. `spread`: min / median / max of a list as text."""
    client = Client(port)
    load(client, program)
    ways = publish(client, publisher(client, port, program))

    def ratios(way, least):
        return spread([cost / floor for cost, floor in zip(ways[way], ways[least], strict=True)])

    yield "a recorded publish, 240 bytes, with id", "µs in Redis", spread(ways["ours"]), ""
    yield "", "µs of the least step that could do it", spread(ways["least"]), ""
    yield "", "ratio, round by round", ratios("ours", "least"), "≤ 2.1"
    yield "", "µs as the publisher whom redis-function --acl prints", spread(ways["printed"]), ""
    yield "", "µs of the least step as this publisher", spread(ways["least printed"]), ""
    yield "", "ratio of these two", ratios("printed", "least printed"), "≤ 2.1"
    yield "", "µs where it is a duplicate", spread(ways["again"]), ""
    for kinds, name, most in ((ASCII, "ASCII", 3), (OTHER, "other", 4)):
        for kind, costs in worst(client, kinds).items():
            yield f"64 KB of {kind}", "ms in Redis", spread(costs), f"≤ {most} ({name})"
    ends = heads(client)
    yield "the minute's look at a topic with events", "µs in Redis", spread(ends["busy"]), "≤ 5"
    yield "the minute's look at a quiet topic", "µs in Redis", spread(ends["quiet"]), "≤ 2"
