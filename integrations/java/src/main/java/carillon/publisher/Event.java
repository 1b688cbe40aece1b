package carillon.publisher;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.UUID;

/**
 * An event: what changed, in ids, types and counts, never the content itself.
 *
 * <p>Its id is decided here, once: a repetition is recognised by it and delivered to nobody a second time.
 */
public final class Event {
    /** The largest event, as JSON in UTF-8. */
    public static final int MAX_BYTES = 65_536;

    private static final Gson JSON = new GsonBuilder().disableHtmlEscaping().create();
    private final Map<String, Object> members = new LinkedHashMap<>();

    /** An event of a type such as {@code comment.created}. */
    public Event(String type) {
        members.put("id", UUID.randomUUID().toString());
        members.put("type", type);
        members.put("time", Instant.now().truncatedTo(ChronoUnit.MILLIS).toString());
    }

    /** Its own id instead of a random one. */
    public Event id(String id) {
        return with("id", id);
    }

    /** Who did it. */
    public Event actor(String actor) {
        return with("actor", actor);
    }

    /** The page that began the change ({@code rt.id}): it drops its own echo. */
    public Event origin(String origin) {
        return with("origin", origin);
    }

    /** Ids, types and counts. */
    public Event data(Map<String, ?> data) {
        return with("data", data);
    }

    private Event with(String name, Object value) {
        if (value != null) {
            members.put(name, value);
        }
        return this;
    }

    String json(String source) {
        Map<String, Object> whole = new LinkedHashMap<>(members);
        if (source != null) {
            whole.put("source", source);
        }
        // Gson refuses NaN and infinity by itself.
        String text = JSON.toJson(whole);
        int size = text.getBytes(StandardCharsets.UTF_8).length;
        if (size > MAX_BYTES) {
            throw new IllegalArgumentException("the event has " + size + " bytes, allowed are " + MAX_BYTES + ": say what changed, not the content itself");
        }
        return text;
    }
}
