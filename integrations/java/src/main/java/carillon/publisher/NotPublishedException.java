package carillon.publisher;

/** An event was not recorded. The message says why, and what to do. */
public final class NotPublishedException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    /** Whether trying later may help: Redis could not be reached, or took no writes. */
    private final boolean temporary;

    NotPublishedException(String message, Throwable cause, boolean temporary) {
        super(message, cause);
        this.temporary = temporary;
    }

    /** Whether trying later may help: Redis could not be reached, or took no writes. */
    public boolean isTemporary() {
        return temporary;
    }
}
