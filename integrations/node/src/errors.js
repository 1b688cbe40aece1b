// What can go wrong when publishing, in words for whoever reads the log, and whether another attempt makes sense.
import { ErrorReply } from 'redis';

/** An event was not recorded. The message says why, and what to do. */
export class NotPublished extends Error {
  name = this.constructor.name;
}
/** Carillon or Redis refuses this topic, event or user. Trying again does not help. */
export class Refused extends NotPublished {}
/** Redis could not be reached, or took no writes, until the patience was used up. Trying later may help. */
export class Unavailable extends NotPublished {}
/** Too many events wait already. */
export class QueueFull extends Unavailable {}

// Answers that pass by themselves: Redis is starting, failing over, short of memory or of replicas.
const TEMPORARY = /^(LOADING|BUSY|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|MISCONF|OOM)/;
// Answers that say who may do what.
const FORBIDDEN = /^(NOPERM|NOAUTH|WRONGPASS)/;

const functionIsMissing = ({ message }) => /function not found/i.test(message);

/** Whether another attempt makes sense. A missing function is loaded by the next node that connects. */
export const isTemporary = (error) => {
  if (FORBIDDEN.test(error.message)) return false;
  return !(error instanceof ErrorReply) || functionIsMissing(error) || TEMPORARY.test(error.message);
};

/** The error that callers see, with the client library's error as its cause. */
export const notPublished = (error, prefix) => {
  if (error instanceof NotPublished) return error;
  const Kind = isTemporary(error) ? Unavailable : Refused;
  return new Kind(explain(error, prefix), { cause: error });
};

const explain = (error, prefix) => {
  if (functionIsMissing(error)) {
    return `Redis has no function ${prefix}_publish: start a Carillon node, which loads it, or load it by hand: ` +
      'carillon redis-function | redis-cli -x FUNCTION LOAD REPLACE';
  }
  if (/^NOPERM/.test(error.message)) {
    return `Redis does not allow this user to publish: ${error.message}. \`carillon redis-function --acl\` prints the rights that a publisher needs`;
  }
  if (/^(TOPIC|EVENT) /.test(error.message)) return `Carillon refuses the event: ${error.message}`;
  return `Redis did not take the event: ${error.message}`;
};
