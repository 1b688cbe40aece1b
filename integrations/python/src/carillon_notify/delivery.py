"""What has become of messages on their way to Redis: which calls are next, what each answer means, how long to wait.

Pure, so that the publisher for threads and the one for asyncio share every decision.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .errors import NotPublished, Result, Unavailable, is_of_topic, is_refused_for_good, is_temporary, not_published
from .events import Message, in_rounds

SHORTEST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


@dataclass(frozen=True)
class Call:
    """One call of the publish function."""

    index: int
    """Which message."""
    topic: str
    text: str


@dataclass
class _Progress:
    positions: dict[str, str] = field(default_factory=dict)
    errors: dict[str, NotPublished] = field(default_factory=dict)

    def lacks(self, topic: str) -> bool:
        return topic not in self.positions and topic not in self.errors


class Delivery:
    """Publishes messages until all are recorded or refused, or the patience is used up."""

    def __init__(
        self,
        messages: Sequence[Message],
        prefix: str,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`patience` is in seconds. Keep it well under five minutes, the time for which Carillon recognises an id."""
        self._messages = messages
        self._progress = [_Progress() for _ in messages]
        self._prefix = prefix
        self._clock = clock
        self._deadline = clock() + patience
        self._pause = SHORTEST_PAUSE

    def calls(self) -> list[Call]:
        """The calls that may be under way together: one per topic. Empty when nothing is left to do."""
        open_ones = [index for index in range(len(self._messages)) if not self._is_over(index)]
        if not open_ones:
            return []
        first = next(iter(in_rounds([self._messages[index] for index in open_ones])))
        return [
            Call(index, topic, self._messages[index].text)
            for index in (open_ones[place] for place in first)
            for topic in self._messages[index].topics
            if self._progress[index].lacks(topic)
        ]

    def take(self, calls: Sequence[Call], answers: Sequence[object]) -> float:
        """Takes the answers to calls, in their order. Returns how long to wait before the next ones, in seconds."""
        temporary: list[tuple[Call, Exception]] = []
        held: dict[str, tuple[int, NotPublished]] = {}
        for call, answer in zip(calls, answers, strict=True):
            progress = self._progress[call.index]
            if not isinstance(answer, Exception):
                progress.positions[call.topic] = str(answer)
            elif is_temporary(answer):
                temporary.append((call, answer))
            else:
                progress.errors[call.topic] = error = not_published(answer, self._prefix)
                if not is_refused_for_good(answer):
                    held[call.topic] = call.index, error
        self._hold(held)
        if len(temporary) < len(calls) and all(is_of_topic(error) for _, error in temporary):
            # Others need not wait.
            self._pause = SHORTEST_PAUSE
            return 0.0
        pause = self._pause * random.uniform(0.5, 1)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        if self._clock() + pause > self._deadline:
            self._give_up(temporary)
            return 0.0
        return pause

    def results(self) -> list[Result]:
        """What became of each message, in their order."""
        return [_result(message, progress) for message, progress in zip(self._messages, self._progress, strict=True)]

    def _is_over(self, index: int) -> bool:
        return not any(map(self._progress[index].lacks, self._messages[index].topics))

    def _hold(self, held: Mapping[str, tuple[int, NotPublished]]) -> None:
        """What is refused by its topic's state and not by itself may be sent again: later ones of the topic do not overtake it."""
        for index, (message, progress) in enumerate(zip(self._messages, self._progress, strict=True) if held else ()):
            for topic in message.topics:
                if topic in held and held[topic][0] < index:
                    progress.errors[topic] = held[topic][1]

    def _give_up(self, temporary: Sequence[tuple[Call, Exception]]) -> None:
        cause = temporary[0][1]
        for call, error in temporary:
            self._progress[call.index].errors[call.topic] = not_published(error, self._prefix)
        for message, progress in zip(self._messages, self._progress, strict=True):
            for topic in filter(progress.lacks, message.topics):
                progress.errors[topic] = not_published(cause, self._prefix)


def _result(message: Message, progress: _Progress) -> Result:
    positions = tuple(progress.positions[topic] for topic in message.topics if topic in progress.positions)
    errors = sorted(progress.errors.values(), key=lambda error: not isinstance(error, Unavailable))
    return Result(positions, next(iter(errors), None), progress.errors)


def position_of(result: Result) -> str:
    """The one position of a message with one topic. Raises what kept it from being recorded."""
    if result.error:
        raise result.error
    return result.positions[0]


def positions_of(result: Result) -> tuple[str, ...]:
    """All positions of a message. Raises what kept it from being recorded."""
    if result.error:
        raise result.error
    return result.positions


