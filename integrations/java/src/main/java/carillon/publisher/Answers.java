package carillon.publisher;

import java.util.Locale;
import java.util.Set;
import redis.clients.jedis.exceptions.JedisAccessControlException;
import redis.clients.jedis.exceptions.JedisConnectionException;
import redis.clients.jedis.exceptions.JedisDataException;
import redis.clients.jedis.exceptions.JedisException;

/** What Redis' errors mean: whether another attempt makes sense, and what to do. */
final class Answers {
    private static final Set<String> TEMPORARY =
            Set.of("LOADING", "BUSY", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "MISCONF", "OOM");

    private Answers() {}

    static NotPublishedException notPublished(JedisException error, String prefix) {
        return new NotPublishedException(explain(error, prefix), error, isTemporary(error));
    }

    /** A missing function is loaded by the next node that connects; everything but an answer is the network. */
    static boolean isTemporary(JedisException error) {
        if (error instanceof JedisAccessControlException) {
            return false;
        }
        if (error instanceof JedisConnectionException || !(error instanceof JedisDataException)) {
            return true;
        }
        return functionIsMissing(error) || TEMPORARY.contains(code(error));
    }

    private static String code(JedisException error) {
        return String.valueOf(error.getMessage()).split(" ", 2)[0];
    }

    private static boolean functionIsMissing(JedisException error) {
        return String.valueOf(error.getMessage()).toLowerCase(Locale.ROOT).contains("function not found");
    }

    private static String explain(JedisException error, String prefix) {
        if (functionIsMissing(error)) {
            return "Redis has no function " + prefix + "_publish: start a Carillon node, which loads it, or load it by hand: "
                    + "carillon redis-function | redis-cli -x FUNCTION LOAD REPLACE";
        }
        if (code(error).equals("NOPERM")) {
            return "Redis does not allow this user to publish: " + error.getMessage()
                    + ". `carillon redis-function --acl` prints the rights that a publisher needs";
        }
        return "Redis did not take the event: " + error.getMessage();
    }
}
