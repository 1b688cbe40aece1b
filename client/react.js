'use client';
// React: hooks over one Realtime. They need React 18 or newer, and no provider: make one Realtime in a module of your own,
// in the browser only. Where there is none (a server renders), give null: then nothing is followed.
import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from 'react';

const ON_A_SERVER = Object.freeze({ state: 'connecting', since: new Date(0).toISOString(), transport: null, node: null, user: null, reason: 'starting', late: [] });

/** The status, for a badge: const { state } = useRealtimeStatus(rt). */
export function useRealtimeStatus(rt) {
  const subscribe = useCallback((changed) => rt?.onStatus(changed) ?? (() => {}), [rt]);
  return useSyncExternalStore(subscribe, () => rt?.status ?? ON_A_SERVER, () => ON_A_SERVER);
}

/** Calls the newest `handler` for each event of a topic. */
export function useEvents(rt, topic, handler) {
  const newest = useNewest(handler);
  useEffect(() => rt?.on(topic, (event, about) => newest.current(event, about)), [rt, topic, newest]);
}

/**
 * What `load` reads from the CMS, read again whenever the topic changes:
 *
 *     const { data, error, reload } = useTopic(rt, `comments:${project}`, () => cms.comments(project));
 *
 * It subscribes first and loads then, so that nothing falls between. Call `reload` after an own change: the echo of it is dropped.
 */
export function useTopic(rt, topic, load) {
  const newest = useNewest(load);
  const [shown, show] = useState({ topic, data: undefined, error: null });
  const current = useRef(() => Promise.resolve());
  const reload = useCallback(() => current.current(), []);
  useEffect(() => {
    const leave = new AbortController();
    const { signal } = leave;
    let running = false, again = false;
    current.current = async () => {
      if (running) { again = true; return; }
      running = true;
      do {
        again = false;
        try {
          const data = await newest.current();
          if (!signal.aborted) show({ topic, data, error: null });
        } catch (error) {
          if (!signal.aborted) show((before) => ({ topic, data: before.topic === topic ? before.data : undefined, error }));
        }
      } while (again && !signal.aborted);
      running = false;
    };
    rt?.on(topic, reload, { signal });
    rt?.onResync(topic, reload, { signal });
    // Where the server has rendered the page, no resync begins the topic.
    if (rt?.start?.positions?.[topic]) reload();
    return () => leave.abort();
  }, [rt, topic, newest, reload]);
  const { data, error } = shown.topic === topic ? shown : { data: undefined, error: null };
  return { data, error, reload };
}

function useNewest(value) {
  const newest = useRef(value);
  useEffect(() => { newest.current = value; });
  return newest;
}
