// React: two hooks over one Realtime. They need React 18 or newer, and no provider: make one Realtime in a module of your own.
import { useEffect, useState, useSyncExternalStore } from 'react';

/** The status, for a badge: const { state } = useRealtimeStatus(rt). */
export function useRealtimeStatus(rt) {
  return useSyncExternalStore((changed) => rt.onStatus(changed), () => rt.status);
}

/**
 * What `load` reads from the CMS, read again whenever the topic changes:
 *
 *     const { data, error, reload } = useTopic(rt, `comments:${project}`, () => cms.comments(project));
 *
 * It subscribes first and loads then, so that nothing falls between. Call `reload` after an own change: the echo of it is dropped.
 */
export function useTopic(rt, topic, load) {
  const [state, setState] = useState({ data: undefined, error: null, reload: () => {} });
  useEffect(() => {
    const leave = new AbortController();
    let running = false, again = false;
    async function reload() {
      if (running) { again = true; return; }
      running = true;
      do {
        again = false;
        try {
          const data = await load();
          if (!leave.signal.aborted) setState({ data, error: null, reload });
        } catch (error) {
          if (!leave.signal.aborted) setState((before) => ({ ...before, error }));
        }
      } while (again && !leave.signal.aborted);
      running = false;
    }
    rt.on(topic, reload, { signal: leave.signal });
    rt.onResync(topic, reload, { signal: leave.signal });
    return () => leave.abort();
  }, [rt, topic]);
  return state;
}
