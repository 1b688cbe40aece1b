"""What can go wrong when publishing, in words for whoever reads the log, and whether another attempt makes sense."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import redis
from redis import exceptions

# Answers that pass by themselves: Redis is failing over, short of memory or replicas, or busy. The client library makes
# classes of most of them.
_TEMPORARY = (
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
    exceptions.OutOfMemoryError,
    exceptions.BusyLoadingError,
    exceptions.ClusterError,
    exceptions.RedisClusterException,
)
CLIENT_ERRORS = (redis.RedisError, exceptions.RedisClusterException, OSError)
"""All that the client library raises. What it says of a cluster without a master for some slots is of a family of its own."""
_TEMPORARY_TEXT = ("BUSY ", "NOREPLICAS ", "MISCONF ", "CLUSTERDOWN ", "MASTERDOWN ", "LOADING ", "TRYAGAIN ")
# What Carillon's function refuses: the topic or the event is wrong, and stays wrong.
_REFUSED_TEXT = ("TOPIC ", "EVENT ")


class NotPublished(Exception):
    """An event was not recorded. The text says why, and what to do."""


class Refused(NotPublished):
    """Carillon or Redis refuses this topic, event or user. Trying again does not help."""


class Unavailable(NotPublished):
    """Redis could not be reached, or took no writes, until the patience was used up. Trying later may help."""


@dataclass(frozen=True)
class Result:
    """What became of one event of `record_many`."""

    positions: tuple[str, ...]
    """The log id (`<epoch>-<seq>`) in each topic, in the order of the topics. Empty where it was not recorded."""
    error: NotPublished | None = None
    """Why it was not recorded. Where another attempt may help in one of its topics, it is `Unavailable`."""
    errors: Mapping[str, NotPublished] = field(default_factory=dict)
    """The same for each topic in which it was not recorded."""


def is_temporary(error: Exception) -> bool:
    """Whether another attempt makes sense.

    What the function refuses (TOPIC, EVENT) or what the user may not do (NOPERM) stays refused. A missing function is
    loaded by the next node that connects.
    """
    # Wrong credentials are a ConnectionError in this library.
    if isinstance(error, (redis.AuthenticationError, exceptions.NoPermissionError, exceptions.AuthorizationError)):
        return False
    if isinstance(error, (redis.ConnectionError, redis.TimeoutError, OSError)):
        return True
    return function_is_missing(error) or isinstance(error, _TEMPORARY) or str(error).startswith(_TEMPORARY_TEXT)


def is_of_topic(error: BaseException | None) -> bool:
    """Whether only this topic has to wait: its slot of a cluster is on its way to another master."""
    return str(error).startswith("TRYAGAIN")


def is_refused_for_good(error: Exception) -> bool:
    """Whether Carillon's function has refused the topic or the event itself."""
    return str(error).startswith(_REFUSED_TEXT)


def function_is_missing(error: Exception) -> bool:
    """Whether this Redis has no function library of Carillon (yet)."""
    return "function not found" in str(error).lower()


def explain(error: Exception, prefix: str) -> str:
    """One sentence that says what happened and what to do."""
    if function_is_missing(error):
        return (
            f"Redis has no function {prefix}_publish (of this version): start a Carillon node, which loads it, or load it by hand: "
            "carillon redis-function | redis-cli -x FUNCTION LOAD REPLACE"
        )
    if isinstance(error, exceptions.NoPermissionError) or "can't access at least one of the keys" in str(error):
        return f"Redis does not allow this user to publish: {error}. `carillon redis-function --acl` prints the rights that a publisher needs"
    if isinstance(error, redis.AuthenticationError):
        return f"Redis does not accept the user name or password: {error}"
    if is_refused_for_good(error):
        return f"Carillon refuses the event: {error}"
    return f"Redis did not take the event: {error}"


def not_published(error: Exception, prefix: str) -> NotPublished:
    """The error that callers see, with the client library's error as its cause."""
    kind = Unavailable if is_temporary(error) else Refused
    trouble = kind(explain(error, prefix))
    trouble.__cause__ = error
    return trouble


def first_error(results: Sequence[Result]) -> NotPublished | None:
    """The first error among results, or None where everything was recorded."""
    return next((result.error for result in results if result.error), None)
