package carillon.publisher;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import redis.clients.jedis.JedisPooled;
import redis.clients.jedis.Protocol;
import redis.clients.jedis.StreamEntryID;
import redis.clients.jedis.exceptions.JedisException;
import redis.clients.jedis.resps.StreamEntry;

/** Against a real Redis with Carillon's functions. CARILLON_BIN names a node's program. */
class PublisherTest {
    private static final Path ROOT = Path.of("../..").toAbsolutePath().normalize();

    @TempDir Path directory;
    private int port;
    private Process server;
    private JedisPooled redis;

    @BeforeEach
    void start() throws Exception {
        port = freePort();
        serve();
        String program = System.getenv().getOrDefault("CARILLON_BIN", ROOT.resolve("target/debug/carillon").toString());
        Process printed = new ProcessBuilder(program, "redis-function").redirectError(ProcessBuilder.Redirect.INHERIT).start();
        redis.functionLoadReplace(new String(printed.getInputStream().readAllBytes(), StandardCharsets.UTF_8));
    }

    @AfterEach
    void stop() throws Exception {
        redis.close();
        server.destroyForcibly().waitFor();
    }

    /** Below the ports that the kernel gives to outgoing connections, so that a server can come back on it. */
    private static int freePort() {
        while (true) {
            int port = ThreadLocalRandom.current().nextInt(12_000, 32_000);
            try (ServerSocket free = new ServerSocket(port, 1, InetAddress.getLoopbackAddress())) {
                return free.getLocalPort();
            } catch (IOException taken) {
                // Another one.
            }
        }
    }

    private void serve() throws IOException {
        server = new ProcessBuilder("redis-server", "--port", Integer.toString(port), "--bind", "127.0.0.1", "--dir", directory.toString(),
                "--appendonly", "yes", "--appendfsync", "always", "--save", "").redirectOutput(ProcessBuilder.Redirect.DISCARD).start();
        redis = new JedisPooled("127.0.0.1", port);
        eventually(() -> "PONG".equals(redis.ping()));
    }

    private static void eventually(BooleanSupplier look) {
        long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        while (true) {
            try {
                if (look.getAsBoolean()) {
                    return;
                }
            } catch (JedisException notYet) {
                // The server is starting.
            }
            assertTrue(System.nanoTime() < deadline, "what the test waits for has not come");
            Thread.onSpinWait();
            try {
                Thread.sleep(10);
            } catch (InterruptedException e) {
                throw new IllegalStateException(e);
            }
        }
    }

    private List<JsonObject> log(String topic) {
        List<StreamEntry> entries = redis.xrange("carillon:" + topic, (StreamEntryID) null, null);
        return entries.stream().map(entry -> JsonParser.parseString(entry.getFields().get("event")).getAsJsonObject()).toList();
    }

    private Publisher publisher() {
        return new Publisher("redis://127.0.0.1:" + port, "cms");
    }

    @Test
    void topicsAreEncodedAsNodesExpectThem() throws IOException {
        assertEquals("comments:42", Topics.of("comments", 42));
        assertEquals("content:a%20b%25c%2Ad%2Ce%7Bf%7D", Topics.of("content", "a b%c*d,e{f}"));
        assertEquals("a%C2%85b%7F%0A", Topics.encodeKey("a\u0085b\u007f\n"));
        assertEquals("notifications:Anna%20Ä\\x", Topics.ofEditor("Anna Ä\\x"));
        for (String bad : List.of("", "a".repeat(201), "ä".repeat(101), "\ud800")) {
            assertThrows(IllegalArgumentException.class, () -> Topics.encodeKey(bad));
        }
        for (String bad : List.of("", "Comments", "a_b", "a:b")) {
            assertThrows(IllegalArgumentException.class, () -> Topics.of(bad));
        }
        List<String> good = Files.readAllLines(ROOT.resolve("tests/corpus/topics.jsonl")).stream()
                .map(line -> JsonParser.parseString(line).getAsJsonObject())
                .filter(line -> line.get("verdict").getAsString().equals("good"))
                .map(line -> line.get("topic").getAsString())
                .filter(topic -> topic.contains(":") && !topic.contains("%"))
                .map(topic -> topic.substring(topic.indexOf(':') + 1)).toList();
        assertTrue(good.size() > 5);
        good.forEach(key -> assertEquals(key, Topics.encodeKey(key)));
    }

    @Test
    void whatHasNotBeenSavedHasNoTopicAndAWrongAddressIsSaidAtOnce() {
        assertThrows(IllegalArgumentException.class, () -> Topics.of("comments", null));
        for (String url : List.of("redis-sentinel://host:26379/main", "redis-cluster://host:6379", "host:6379")) {
            assertThrows(IllegalArgumentException.class, () -> new Publisher(url, "cms"), url);
        }
    }

    @Test
    void privateTopicsAreNamedAsNodesNameThem() throws IOException {
        JsonObject vectors = JsonParser.parseString(Files.readString(ROOT.resolve("docs/private-keys.json"))).getAsJsonObject();
        assertTrue(vectors.getAsJsonArray("editors").size() > 30);
        vectors.getAsJsonArray("editors").forEach(item -> {
            JsonObject editor = item.getAsJsonObject();
            String name = editor.get("name").getAsString();
            assertEquals("notifications:" + editor.get("key").getAsString(), Topics.ofEditor(name));
            assertEquals("notifications:" + editor.get("folded").getAsString(), Topics.ofEditor(Topics.folded(name)));
        });
        vectors.getAsJsonArray("nobody").forEach(item -> {
            String name = item.getAsJsonObject().get("name").getAsString();
            assertThrows(IllegalArgumentException.class, () -> Topics.ofEditor(name), name);
        });
    }

    @Test
    void anEventIsRecordedOnceHoweverOftenItIsSent() {
        try (Publisher publisher = publisher()) {
            Event event = new Event("comment.created").id("once").data(Map.of("comment", 7));
            String position = publisher.record("comments:42", event);
            assertEquals(position, publisher.record("comments:42", event));
            JsonObject kept = log("comments:42").get(0);
            assertEquals(1, log("comments:42").size());
            assertEquals("cms", kept.get("source").getAsString());
            assertEquals(7, kept.getAsJsonObject("data").get("comment").getAsInt());
        }
    }

    @Test
    void oneEventReachesSeveralTopics() {
        try (Publisher publisher = publisher()) {
            List<String> positions = publisher.record(List.of("content:1", "content:2", "content:1"), new Event("content.moved"));
            assertEquals(2, positions.size());
            assertEquals(log("content:1").get(0).get("id"), log("content:2").get(0).get("id"));
        }
    }

    @Test
    void whatWaitsForRedisArrivesInOrderWhenItIsBack() throws Exception {
        try (Publisher publisher = publisher()) {
            publisher.record("comments:1", new Event("a.b").data(Map.of("n", 0)));
            redis.close();
            server.destroyForcibly().waitFor();
            IntStream.rangeClosed(1, 5).forEach(n -> assertTrue(publisher.enqueue("comments:1", new Event("a.b").data(Map.of("n", n)))));
            assertEquals(5, publisher.waiting());
            serve();
            eventually(() -> publisher.waiting() == 0);
            List<Integer> numbers = log("comments:1").stream().map(event -> event.getAsJsonObject("data").get("n").getAsInt()).toList();
            assertEquals(List.of(0, 1, 2, 3, 4, 5), numbers);
        }
    }

    @Test
    void whatIsRefusedIsToldAndHoldsNothingUp() {
        List<NotPublishedException> lost = new ArrayList<>();
        try (Publisher publisher = new Publisher(new JedisPooled("127.0.0.1", port), "cms", "carillon", lost::add)) {
            NotPublishedException refused = assertThrows(NotPublishedException.class, () -> publisher.record("nowhere:1", new Event("a.b")));
            assertFalse(refused.isTemporary());
            publisher.enqueue("nowhere:1", new Event("a.b"));
            publisher.enqueue("comments:1", new Event("a.b"));
            eventually(() -> publisher.waiting() == 0);
            assertEquals(1, lost.size());
            assertEquals(1, log("comments:1").size());
        }
    }

    @Test
    void aListenerThatFailsDoesNotSilenceThePublisher() {
        Thread.UncaughtExceptionHandler usual = Thread.getDefaultUncaughtExceptionHandler();
        AtomicInteger told = new AtomicInteger();
        Thread.setDefaultUncaughtExceptionHandler((thread, failure) -> told.incrementAndGet());
        try (Publisher publisher = new Publisher(new JedisPooled("127.0.0.1", port), "cms", "carillon", lost -> {
            throw new IllegalStateException("the listener is broken");
        })) {
            publisher.enqueue("nowhere:1", new Event("a.b"));
            publisher.enqueue("comments:1", new Event("a.b"));
            eventually(() -> publisher.waiting() == 0);
            assertEquals(1, log("comments:1").size());
            assertEquals(1, told.get());
        } finally {
            Thread.setDefaultUncaughtExceptionHandler(usual);
        }
    }

    @Test
    void theQueueIsBoundedAndAnEventGoesToAllItsTopicsOrToNone() throws Exception {
        try (Publisher publisher = new Publisher(new JedisPooled("127.0.0.1", port), "cms", "carillon", 3, lost -> {})) {
            redis.close();
            server.destroyForcibly().waitFor();
            assertTrue(publisher.enqueue(List.of("content:1", "content:2"), new Event("content.moved")));
            assertFalse(publisher.enqueue(List.of("content:3", "content:4"), new Event("content.moved")));
            assertEquals(2, publisher.waiting());
            assertTrue(publisher.enqueue("content:5", new Event("content.saved")));
            assertFalse(publisher.enqueue("content:6", new Event("content.saved")));
            serve();
            eventually(() -> publisher.waiting() == 0);
            List.of("content:1", "content:2", "content:5").forEach(topic -> assertEquals(1, log(topic).size(), topic));
            List.of("content:3", "content:4", "content:6").forEach(topic -> assertEquals(0, log(topic).size(), topic));
        }
    }

    @Test
    void manyEventsKeepTheirOrderAndEachHasItsResult() {
        try (Publisher publisher = publisher()) {
            List<Publisher.Message> messages = new ArrayList<>();
            IntStream.range(0, 9).forEach(n -> messages.add(new Publisher.Message(List.of("content:" + n % 3), new Event("content.saved").data(Map.of("n", n)))));
            messages.add(4, new Publisher.Message(List.of("nowhere:1"), new Event("content.saved")));
            List<Publisher.Result> results = publisher.recordMany(messages);
            assertFalse(results.get(4).error().isTemporary());
            assertEquals(9, results.stream().filter(result -> result.error() == null && result.positions().size() == 1).count());
            List<Integer> numbers = log("content:1").stream().map(event -> event.getAsJsonObject("data").get("n").getAsInt()).toList();
            assertEquals(List.of(1, 4, 7), numbers);
        }
    }

    @Test
    void aLiveEventReachesWhoListensAndNobodyElse() {
        try (Publisher publisher = publisher()) {
            assertEquals(0, publisher.live("comments:1", new Event("activity.updated")));
            assertEquals(List.of(), log("comments:1"));
        }
    }

    @Test
    void errorsSayWhatToDoAndNeverThePassword() {
        redis.sendCommand(Protocol.Command.ACL, "SETUSER", "reader", "on", ">topsecret", "+get", "~*");
        try (Publisher publisher = new Publisher("redis://reader:topsecret@127.0.0.1:" + port, "cms")) {
            NotPublishedException refused = assertThrows(NotPublishedException.class, () -> publisher.record("comments:1", new Event("a.b")));
            assertTrue(refused.getMessage().contains("redis-function --acl"), refused.getMessage());
            assertFalse(refused.getMessage().contains("topsecret"));
        }
    }
}
