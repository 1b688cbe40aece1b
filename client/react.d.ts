/** React hooks of Carillon's browser client. `rt` is null where there is no page: on a server that renders. */
import type { CarillonEvent, EventAbout, Realtime, Status } from './realtime.js';

/** The present status; the component renders again when it changes. */
export declare function useRealtimeStatus(rt: Realtime | null | undefined): Status;
/** Calls the newest `handler` for each event of a topic, while the component is there. */
export declare function useEvents<D = any>(rt: Realtime | null | undefined, topic: string, handler: (event: CarillonEvent<D>, about: EventAbout) => unknown): void;
/** What `load` reads, read again whenever the topic may have changed. `data` is undefined until the first read; `error` is what the last one threw. */
export declare function useTopic<T>(rt: Realtime | null | undefined, topic: string, load: () => Promise<T> | T): { data: T | undefined; error: unknown; reload: () => Promise<void> };
