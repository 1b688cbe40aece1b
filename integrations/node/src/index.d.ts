/** An event: a small JSON object that says what changed, never the content itself. */
export interface CarillonEvent {
  /** `<noun>.<verb>`, for example `comment.created`. */
  type: string;
  id?: string;
  time?: string;
  source?: string;
  actor?: string;
  /** `rt.id` of the page that began the change: it drops its own echo. */
  origin?: string;
  data?: unknown;
  [attribute: string]: unknown;
}

export interface PublisherOptions {
  /** Names this publisher in its events. */
  source?: string;
  /** The nodes' `redis.prefix`; `carillon` by default. */
  prefix?: string;
  /** Milliseconds until `record` gives up; 10,000 by default. Keep it well under five minutes, the time for which Carillon recognises an id. */
  patience?: number;
  /** How many events may wait; 10,000 by default. */
  queue?: number;
  /** Further options for the Redis client (`socket: { tls: true, ca }`, for example). */
  redis?: Record<string, unknown>;
}

/** What became of one event of `recordMany`. */
export interface Result {
  /** The log id (`<epoch>-<seq>`) in each topic that took it. */
  positions: string[];
  /** Why it was not recorded everywhere. */
  error?: NotPublished;
}

/** Publishes to the Redis that Carillon's nodes listen to. One is enough for a process. */
export class Publisher {
  /** @param url redis://, rediss://, redis-sentinel://host:26379/service or redis-cluster://host:6379 */
  constructor(url: string, options?: PublisherOptions);
  /** How many events wait to be recorded. */
  readonly waiting: number;
  /** Publishes an event that is kept for editors who are away. Gives its log id. Events of one topic keep their order. */
  record(topic: string, event: CarillonEvent): Promise<string>;
  /** The same event to several topics. Gives one log id for each. */
  record(topics: string[], event: CarillonEvent): Promise<string[]>;
  /** Many events. Never rejects for one of them. */
  recordMany(events: Iterable<readonly [topics: string | string[], event: CarillonEvent]>): Promise<Result[]>;
  /** Publishes to whoever is connected at this moment; nothing is kept. Gives how many nodes it reached. */
  live(topic: string, event: CarillonEvent): Promise<number>;
  /**
   * Vouches for a source from now on: when this process falls silent, or an event waits for more than 10 s, editors are told. An event that was given up counts as
   * one that waits, for a minute. Give each process a name of its own (`cms-1`, `cms-2`): of two that share one, the last report counts.
   */
  report(name: string, options?: { everySeconds?: number; vouchedSeconds?: number }): void;
  /** Says good-bye for the reported sources, and closes the connection. */
  close(): Promise<void>;
}

/** An event was not recorded. The message says why, and what to do. */
export class NotPublished extends Error {}
/** Carillon or Redis refuses this topic, event or user. Trying again does not help. */
export class Refused extends NotPublished {}
/** Redis could not be reached, or took no writes, until the patience was used up. */
export class Unavailable extends NotPublished {}
/** Too many events wait already. */
export class QueueFull extends Unavailable {}

/** Percent-encodes a value for use as a topic's key. */
export function encodeKey(value: unknown): string;
/** The topic of a whole area. */
export function topic(area: string): string;
/** `topic('comments', 42)` is `comments:42`. A key that is not there yet (`undefined`, `null`) is refused. */
export function topic(area: string, key: unknown): string;
/**
 * The topic of one editor in a private area. `sub` is exactly what the editor's token says; where nodes have
 * `auth.fold_subject = true`, it is `folded(sub)`.
 */
export function privateTopic(sub: unknown, area?: string): string;

/** An editor's name in lower case, letter by letter, as nodes with `auth.fold_subject = true` compare it. */
export function folded(sub: unknown): string;
