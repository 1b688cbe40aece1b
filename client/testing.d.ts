/** For tests of pages: a Realtime without a node, which plays what the test says. */
import { Realtime, type CarillonEvent, type ResyncReason, type Status } from './realtime.js';

export declare class FakeRealtime extends Realtime {
  /** `state`: what it begins with; default `live`. */
  constructor(options?: { state?: Status['state'] });
  /** An event, to whoever follows the topic. */
  playEvent(topic: string, event: CarillonEvent, about?: { position?: string; replayed?: boolean }): void;
  /** "These may have changed": handlers of `onResync` are called in the next turn. */
  playResync(topics: string | string[], reason?: ResyncReason): void;
  /** What a badge shows. */
  playState(state: Status['state'], more?: Partial<Status>): void;
  /** The topic is not followed; it must be asked for by a handler. */
  playRefusal(topic: string, code?: 'forbidden' | 'bad-topic' | 'too-many'): void;
}
