/** Browser client of Carillon. Guide: README.md. */

/** `stale`: it was live and is not now, so the page may be behind. `off`: nothing will come; the page has to be refreshed by hand. */
export type State = 'connecting' | 'live' | 'stale' | 'off';
export type Transport = 'websocket' | 'sse' | 'poll';

/**
 * `starting`; `token`: `token()` fails, gives no token, or the node refuses it; `unreachable`: nobody answers; `lost`: the
 * connection was cut; `busy`: the node asks to come back later; `redis`: the node has lost sight of Redis; `simulated`: by
 * `simulate()`. With `off`: `disabled` (every transport switched off), `forbidden` (4403), `malformed` (4400),
 * `signed-out`, `closed` (by `close()`).
 */
export type Reason = 'starting' | 'token' | 'unreachable' | 'lost' | 'busy' | 'redis' | 'simulated' | 'disabled' | 'forbidden' | 'malformed' | 'signed-out' | 'closed';

/** Frozen: a new one for each change. */
export interface Status {
  state: State;
  /** RFC 3339: since when it is so. */
  since: string;
  /** In use now; null while there is no session. */
  transport: Transport | null;
  /** The node that serves, by its name. */
  node: string | null;
  /** Who the node takes this page for. */
  user: string | null;
  /** Why it is not live; null while it is. */
  reason: Reason | null;
  /** Publishers whose changes may be late, and since when (RFC 3339), where publishers vouch for themselves (contract, 3.1). The state stays `live`. */
  late: readonly Late[];
}
export interface Late { source: string; since: string }

export interface RealtimeOptions {
  /** Where the nodes are: a path on this host, or an address elsewhere. Default `/realtime`. */
  url?: string;
  /**
   * Gives a fresh token each time it is called, for (at least) the topics that are followed; null, or a thrown
   * `Realtime.SignedOut`, where nobody is signed in. Leave it out when the CMS' cookie is the token.
   */
  token?: string | ((about: { topics: string[] }) => string | null | Promise<string | null>);
  /** Which transports, in which order. Default `['websocket', 'sse', 'poll']`. */
  transports?: Transport[];
  /** One connection for all tabs of this user (SharedWorker). Default true; needs a JWT or `user`. */
  shared?: boolean;
  /** Who is signed in, where the token does not say so (cookies, opaque tokens). Needed only for sharing. */
  user?: string;
  /** What the page brought along, so that nothing but the connection is asked for. */
  start?: Start;
}

/** From the server that rendered the page. */
export interface Start {
  /** The answer of `GET /realtime/config`. */
  config?: { websocket?: boolean; sse?: boolean; poll?: boolean; [more: string]: unknown };
  /** The first token. */
  token?: string;
  /** `positions` and `at` of `GET /positions`, read before the page's data: what changed since then comes as events. */
  positions?: Record<string, string>;
  at?: number;
}

/** What was announced. Never the content: read that from the CMS, which knows who may see it. */
export interface CarillonEvent<D = any> {
  type: string;
  id?: string;
  time?: string;
  source?: string;
  actor?: string;
  origin?: string;
  data?: D;
  [attribute: string]: unknown;
}

export interface EventAbout {
  /** The topic it came on: the one that was asked for, or its area. */
  topic: string;
  /** Opaque; absent on a live event. */
  position?: string;
  /** It had been missed, and was sent after the connection was back. */
  replayed: boolean;
}

export type ResyncReason = 'subscribed' | 'redis-changed' | 'log-replaced' | 'no-position' | 'trimmed' | 'gap' | 'invalid' | 'live' | 'slow';
export interface ResyncAbout { topic: string; reason: ResyncReason | (string & {}) }
export interface RawMessage { direction: 'in' | 'out'; transport: Transport; time: string; message: any }

export interface HandlerOptions {
  /** Ends the subscription when aborted. */
  signal?: AbortSignal;
  /** Ends it after the first call. */
  once?: boolean;
}
type Callback<A extends unknown[]> = ((...args: A) => unknown) | { handleEvent(...args: A): unknown };

/** For trying out what a page does when the connection breaks. All false or empty: mended. */
export interface Faults {
  /** As if the cable were pulled. */
  offline?: boolean;
  /** These transports do not get through. */
  block?: Transport[];
  /** Connected, but nothing arrives. */
  stale?: boolean;
  /** The link is cut once. */
  drop?: boolean;
}

/** `detail` of the events that a Realtime fires. */
export interface RealtimeEvents {
  status: Status;
  event: EventAbout & { event: CarillonEvent };
  resync: ResyncAbout;
  refused: { topic: string; code: 'forbidden' | 'bad-topic' | 'too-many' };
  message: RawMessage;
}

/** Well-known events by area (contract, 2): `rt.on<AreaEvents['comments']['data']>(…)`, or `event as AreaEvents['comments']`. Others pass too. */
export interface AreaEvents {
  comments: CarillonEvent<{ project?: number; comment?: string; activity?: string; item?: string }> & { type: `${'activity' | 'comment'}.${'created' | 'updated' | 'deleted'}` };
  'project-items': CarillonEvent<{ project?: number; items?: { id: string; content?: string; language?: string }[] }> & { type: `project_item.${'saved' | 'deleted' | 'stale'}` };
  projects: CarillonEvent<{ project?: number; status?: string }> & { type: `project.${'saved' | 'deleted' | 'status'}` };
  notifications: CarillonEvent<{ notification?: string; unread?: number }> & { type: `notification.${'created' | 'read' | 'read_all' | 'deleted'}` };
  content: CarillonEvent<{ content?: string; language?: string }> & { type: `content.${'saved' | 'checked_in' | 'published' | 'scheduled' | 'rejected' | 'moved' | 'deleted'}` };
}

export declare class Realtime extends EventTarget {
  constructor(options?: RealtimeOptions);
  /** Throw it in `token()` where nobody is signed in; the same as giving null. */
  static SignedOut: new (message?: string) => Error;
  /** `<tab>.<view>`: the first part lasts across page loads of the tab. Send it to the CMS as `origin`; the echo of your own change is dropped here. */
  readonly id: string;
  readonly status: Status;
  /** Encodes a key as topics want it: `Realtime.topic('notifications', user)`, with the user as in the token's `sub`. */
  static topic(area: string, key: string | number): string;
  /** Follows a topic (`area`, `area:key`, `area:*`). A key covers its area too. Returns a function that ends it. */
  on<D = any>(topic: string, handler: Callback<[event: CarillonEvent<D>, about: EventAbout]>, options?: HandlerOptions): () => void;
  /** Called when the topic has to be read (again): once it is followed (`subscribed`), and whenever events may have been missed. Follows it, too. */
  onResync(topic: string, handler: Callback<[about: ResyncAbout]>, options?: HandlerOptions): () => void;
  /** Called at once and at every change. */
  onStatus(handler: (status: Status) => unknown, options?: { signal?: AbortSignal }): () => void;
  /** Every raw message, for log drawers; tokens are blacked out. */
  onMessage(handler: (message: RawMessage) => unknown, options?: { signal?: AbortSignal }): () => void;
  /** Ends what `on` or `onResync` began. */
  off(topic: string, handler: unknown): void;
  /** Resolves once live and all that was asked for is followed (or refused), or off: look at the state. */
  ready(): Promise<Status>;
  /** Breaks the connection in a controlled way; `simulate({})` mends it. With a shared connection this is felt in all its tabs. */
  simulate(faults: Faults): void;
  /** On again after `off`, where it was not closed: somebody has signed in, or has been let in again. */
  connect(): void;
  /** Ends everything, for good. Call it at sign-out. */
  close(): void;
  addEventListener<K extends keyof RealtimeEvents>(type: K, listener: ((event: CustomEvent<RealtimeEvents[K]>) => unknown) | { handleEvent(event: CustomEvent<RealtimeEvents[K]>): unknown } | null, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<K extends keyof RealtimeEvents>(type: K, listener: ((event: CustomEvent<RealtimeEvents[K]>) => unknown) | { handleEvent(event: CustomEvent<RealtimeEvents[K]>): unknown } | null, options?: boolean | EventListenerOptions): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

export declare const VERSION: string;
