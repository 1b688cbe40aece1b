package carillon.publisher;

import java.net.URI;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Deque;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import redis.clients.jedis.JedisCluster;
import redis.clients.jedis.JedisPooled;
import redis.clients.jedis.UnifiedJedis;
import redis.clients.jedis.exceptions.JedisException;
import redis.clients.jedis.util.SafeEncoder;

/**
 * Publishes to the Redis that the nodes listen to. One is enough for a process; threads may share it.
 *
 * <p>{@link #enqueue} never waits and is for request threads; {@link #record} waits for the log id.
 */
public final class Publisher implements AutoCloseable {
    /** How many events may wait. */
    public static final int QUEUE = 10_000;

    private static final long PATIENCE_MS = 10_000;
    private static final long SHORTEST_PAUSE_MS = 50;
    private static final long LONGEST_PAUSE_MS = 1_000;
    private static final int REPORT_SECONDS = 5;
    private static final int VOUCHED_SECONDS = 15;

    /** An event on its way to one or more topics, as {@link #recordMany} takes it. */
    public record Message(Collection<String> topics, Event event) {}

    /** What became of a message: a log id for each topic that took it, in their order, and what kept it from the others, or null. */
    public record Result(List<String> positions, NotPublishedException error) {}

    private record Waiting(String topic, String text, long sinceNanos) {}

    private final UnifiedJedis redis;
    private final String source;
    private final String prefix;
    private final Consumer<NotPublishedException> onLost;
    private final int queue;
    private final Deque<Waiting> waiting = new ArrayDeque<>();
    private final Map<String, Boolean> reported = new ConcurrentHashMap<>();
    private final ScheduledExecutorService reports = Executors.newSingleThreadScheduledExecutor(task -> daemon(task, "carillon-report"));
    private final Thread drainer = daemon(this::drain, "carillon-publisher");
    private volatile boolean closed;

    /** Publishes to one Redis, {@code redis://user:password@host:6379}. {@code source} names this publisher. */
    public Publisher(String url, String source) {
        this(new JedisPooled(address(url)), source, "carillon", lost -> {});
    }

    private static URI address(String url) {
        URI address = URI.create(url);
        if (!Set.of("redis", "rediss").contains(String.valueOf(address.getScheme()))) {
            throw new IllegalArgumentException("the Redis URL must begin with redis:// or rediss://; for Sentinel and Cluster, give a JedisSentineled or JedisCluster");
        }
        return address;
    }

    /**
     * Publishes by a client of yours: {@code JedisPooled}, {@code JedisSentineled} or {@code JedisCluster}.
     *
     * @param prefix the nodes' {@code redis.prefix}
     * @param onLost told of queued events that were refused, and of outages that last
     */
    public Publisher(UnifiedJedis redis, String source, String prefix, Consumer<NotPublishedException> onLost) {
        this(redis, source, prefix, QUEUE, onLost);
    }

    /** As above, with room for {@code queue} events that wait. */
    public Publisher(UnifiedJedis redis, String source, String prefix, int queue, Consumer<NotPublishedException> onLost) {
        this.queue = queue;
        this.redis = redis;
        this.source = source;
        this.prefix = prefix;
        this.onLost = onLost;
        drainer.start();
    }

    /** Publishes an event that is kept for editors who are away. Gives its log id, {@code epoch-seq}. */
    public String record(String topic, Event event) {
        return deliver(topic, event.json(source));
    }

    /** The same event to several topics. Gives one log id for each, in their order without repetitions. */
    public List<String> record(Collection<String> topics, Event event) {
        String text = event.json(source);
        return distinct(topics).stream().map(topic -> deliver(topic, text)).toList();
    }

    /** Publishes many events in their order, and waits for them. One result for each; what is refused stops nothing else. */
    public List<Result> recordMany(Collection<Message> messages) {
        List<Result> results = new ArrayList<>();
        NotPublishedException outage = null;
        for (Message message : messages) {
            // What comes after an outage must not overtake what was lost in it.
            Result result = outage == null ? recordOne(message) : new Result(List.of(), outage);
            outage = result.error != null && result.error.isTemporary() ? result.error : null;
            results.add(result);
        }
        return List.copyOf(results);
    }

    private Result recordOne(Message message) {
        String text = message.event.json(source);
        List<String> positions = new ArrayList<>();
        try {
            for (String topic : distinct(message.topics)) {
                positions.add(deliver(topic, text));
            }
            return new Result(List.copyOf(positions), null);
        } catch (NotPublishedException error) {
            return new Result(List.copyOf(positions), error);
        }
    }

    /** Publishes to whoever is connected at this moment; nothing is kept. Gives how many nodes it reached. */
    public long live(String topic, Event event) {
        String channel = prefix + ":" + topic;
        String text = event.json(source);
        try {
            // A cluster delivers sharded messages only.
            return redis instanceof JedisCluster cluster ? cluster.spublish(channel, text) : redis.publish(channel, text);
        } catch (JedisException error) {
            throw Answers.notPublished(error, prefix);
        }
    }

    /** Puts an event into the queue and returns at once. False where too many wait already. */
    public boolean enqueue(String topic, Event event) {
        return enqueue(List.of(topic), event);
    }

    /** The same event to several topics: all of them, or false and none. */
    public boolean enqueue(Collection<String> topics, Event event) {
        String text = event.json(source);
        List<Waiting> next = distinct(topics).stream().map(topic -> new Waiting(topic, text, System.nanoTime())).toList();
        synchronized (waiting) {
            if (closed || waiting.size() + next.size() > queue) {
                return false;
            }
            waiting.addAll(next);
            waiting.notifyAll();
            return true;
        }
    }

    /** How many events wait. */
    public int waiting() {
        synchronized (waiting) {
            return waiting.size();
        }
    }

    /** Vouches for a source from now on: when this process falls silent, editors are told. */
    public void report(String name) {
        if (reported.putIfAbsent(name, true) == null) {
            reports.scheduleAtFixedRate(() -> tell(name, VOUCHED_SECONDS), 0, REPORT_SECONDS, TimeUnit.SECONDS);
        }
    }

    /** Says good-bye for the reported sources and closes the connections. What waits is lost. */
    @Override
    public void close() {
        reports.shutdownNow();
        reported.keySet().forEach(name -> tell(name, 0));
        synchronized (waiting) {
            closed = true;
            waiting.notifyAll();
        }
        drainer.interrupt();
        redis.close();
    }

    // In order, one at a time: a repetition never changes the order of a topic.
    private void drain() {
        try {
            while (true) {
                Waiting next = next();
                drain(next);
                synchronized (waiting) {
                    waiting.removeFirst();
                }
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private Waiting next() throws InterruptedException {
        synchronized (waiting) {
            while (waiting.isEmpty()) {
                if (closed) {
                    throw new InterruptedException();
                }
                waiting.wait();
            }
            return waiting.getFirst();
        }
    }

    private void drain(Waiting next) throws InterruptedException {
        while (!closed) {
            try {
                deliver(next.topic, next.text);
                return;
            } catch (NotPublishedException lost) {
                tellLost(lost);
                // An outage is waited for; what is refused stays refused.
                if (!lost.isTemporary()) {
                    return;
                }
            }
        }
        throw new InterruptedException();
    }

    private void tellLost(NotPublishedException lost) {
        try {
            onLost.accept(lost);
        } catch (RuntimeException broken) {
            // Whoever listens may fail, and publishing goes on.
            Thread.currentThread().getThreadGroup().uncaughtException(Thread.currentThread(), broken);
        }
    }

    private static Collection<String> distinct(Collection<String> topics) {
        if (topics.isEmpty()) {
            throw new IllegalArgumentException("an event needs at least one topic");
        }
        return new LinkedHashSet<>(topics);
    }

    private String deliver(String topic, String text) {
        long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(PATIENCE_MS);
        for (long pause = SHORTEST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
            try {
                return call("_publish", topic, text);
            } catch (JedisException error) {
                long wait = ThreadLocalRandom.current().nextLong(pause / 2, pause + 1);
                if (!Answers.isTemporary(error) || System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(wait) > deadline || !pauseFor(wait)) {
                    throw Answers.notPublished(error, prefix);
                }
            }
        }
    }

    private static boolean pauseFor(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
            return true;
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            return false;
        }
    }

    private void tell(String name, int seconds) {
        long oldest;
        synchronized (waiting) {
            oldest = waiting.isEmpty() ? 0 : TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - waiting.getFirst().sinceNanos);
        }
        try {
            call("_source", "sources", name, Integer.toString(seconds), Long.toString(oldest));
        } catch (JedisException silence) {
            // Silence is what tells the editors.
            return;
        }
    }

    private String call(String function, String key, String... arguments) {
        Object answer = redis.fcall(prefix + function, List.of(prefix + ":" + key), List.of(arguments));
        return answer instanceof byte[] bytes ? SafeEncoder.encode(bytes) : String.valueOf(answer);
    }

    private static Thread daemon(Runnable task, String name) {
        Thread thread = new Thread(task, name);
        thread.setDaemon(true);
        return thread;
    }
}
