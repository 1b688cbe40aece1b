/** Browser client of Carillon. Guide: README.md. */

/** `stale`: it was live and is not now, so the page may be behind. `off`: nothing will come; the page has to be refreshed by hand. */
export type State = 'connecting' | 'live' | 'stale' | 'off';
export type Transport = 'websocket' | 'sse' | 'poll';

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
  /** Why it is `off`: `disabled` (every transport switched off), `forbidden` (4403), `malformed` (4400), `closed` (by `close()`). */
  reason: 'disabled' | 'forbidden' | 'malformed' | 'closed' | null;
}

export interface RealtimeOptions {
  /** Where the nodes are: a path on this host, or an address elsewhere. Default `/realtime`. */
  url?: string;
  /** Gives a fresh token each time it is called. Leave it out when the CMS' cookie is the token. */
  token?: string | (() => string | null | Promise<string | null>);
  /** Which transports, in which order. Default `['websocket', 'sse', 'poll']`. */
  transports?: Transport[];
  /** One connection for all tabs of this user (SharedWorker). Default true; needs a JWT or `user`. */
  shared?: boolean;
  /** Who is signed in, where the token does not say so (cookies, opaque tokens). Needed only for sharing. */
  user?: string;
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

export declare class Realtime extends EventTarget {
  constructor(options?: RealtimeOptions);
  /** This tab's client id. Send it to the CMS as `origin`; the echo of your own change is dropped here. */
  readonly id: string;
  readonly status: Status;
  /** Encodes a key as topics want it: `Realtime.topic('notifications', user.toLowerCase())`. */
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
  /** Ends everything, for good. Call it at sign-out. */
  close(): void;
}

export declare const VERSION: string;
