package carillon.publisher;

import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.regex.Pattern;

/** Topics: {@code area} or {@code area:key}, with keys encoded the way every node expects them. */
public final class Topics {
    /** The longest key, in bytes of UTF-8, after encoding. */
    public static final int MAX_KEY_BYTES = 200;

    private static final Pattern AREA = Pattern.compile("[a-z][a-z0-9-]{0,31}");

    private Topics() {}

    /** The topic of a whole area. */
    public static String of(String area) {
        if (!AREA.matcher(area).matches()) {
            throw new IllegalArgumentException("'" + area + "' cannot be an area: use a lower-case letter, then up to 31 lower-case letters, digits or hyphens");
        }
        return area;
    }

    /** The topic of one thing in an area: {@code Topics.of("comments", 42)} is {@code comments:42}. */
    public static String of(String area, Object key) {
        if (key == null) {
            throw new IllegalArgumentException("null cannot be a topic's key: has it been saved?");
        }
        return of(area) + ":" + encodeKey(String.valueOf(key));
    }

    /**
     * The topic of one editor in the private area {@code notifications}. {@code sub} is exactly what their token says; where nodes
     * have {@code auth.fold_subject = true}, it is {@link #folded}.
     */
    public static String ofEditor(String sub) {
        if (sub.chars().anyMatch(Character::isISOControl)) {
            throw new IllegalArgumentException("an editor's name has no control characters");
        }
        return of("notifications", sub);
    }

    /** An editor's name in lower case, letter by letter, as nodes with {@code auth.fold_subject = true} compare it. */
    public static String folded(String sub) {
        return sub.codePoints().map(Character::toLowerCase)
                .collect(StringBuilder::new, StringBuilder::appendCodePoint, StringBuilder::append).toString();
    }

    /** Percent-encodes a key: only what must be, with upper-case hexadecimal. */
    public static String encodeKey(String value) {
        StringBuilder key = new StringBuilder(value.length());
        value.codePoints().forEach(c -> {
            if (!mustBeEncoded(c)) {
                key.appendCodePoint(c);
                return;
            }
            for (byte b : Character.toString(c).getBytes(StandardCharsets.UTF_8)) {
                key.append(String.format("%%%02X", b));
            }
        });
        int size = utf8(key).remaining();
        if (size < 1 || size > MAX_KEY_BYTES) {
            throw new IllegalArgumentException("a topic's key has " + size + " bytes encoded, allowed are 1 to " + MAX_KEY_BYTES);
        }
        return key.toString();
    }

    private static ByteBuffer utf8(CharSequence text) {
        try {
            return StandardCharsets.UTF_8.newEncoder().encode(CharBuffer.wrap(text));
        } catch (CharacterCodingException e) {
            throw new IllegalArgumentException("a topic's key holds half of a surrogate pair", e);
        }
    }

    /** Space, percent, what means something in topic lists and channel names, and all control characters (C0, DEL, C1). */
    private static boolean mustBeEncoded(int c) {
        return c <= ' ' || "%*,{}".indexOf(c) >= 0 || (c >= 0x7f && c <= 0x9f);
    }
}
