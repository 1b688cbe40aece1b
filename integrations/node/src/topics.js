// Topics: `area` or `area:key`, with keys encoded the way every Carillon node expects them.

const AREA = /^[a-z][a-z0-9-]{0,31}$/;
// Space, percent, what means something in topic lists and channel names, and all control characters (C0, DEL, C1).
const ENCODED = /[ %*,{}\u0000-\u001f\u007f-\u009f]/g;
const MAX_KEY_BYTES = 200;

const hexadecimal = (character) =>
  [...new TextEncoder().encode(character)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join('');

/** Percent-encodes a value for use as a topic's key: only what must be, with upper-case hexadecimal. */
export const encodeKey = (value) => {
  if (value === undefined || value === null) throw new RangeError(`${value} cannot be a topic's key: has it been saved?`);
  const text = String(value);
  if (!text.isWellFormed()) throw new RangeError(`${JSON.stringify(text)} cannot be a topic's key: it holds half of a surrogate pair`);
  const key = text.replace(ENCODED, hexadecimal);
  const size = Buffer.byteLength(key);
  if (size < 1 || size > MAX_KEY_BYTES) {
    throw new RangeError(`${JSON.stringify(text)} cannot be a topic's key: it has ${size} bytes encoded, allowed are 1 to ${MAX_KEY_BYTES}`);
  }
  return key;
};

/**
 * The topic of an area, or of one thing in it: `topic('comments', 42)` is `comments:42`. A key of `undefined` or `null` is refused: it
 * would reach everybody who follows anything in the area.
 */
export const topic = (area, ...keys) => {
  if (!AREA.test(area)) {
    throw new RangeError(`${JSON.stringify(area)} cannot be an area: use a lower-case letter, then up to 31 lower-case letters, digits or hyphens`);
  }
  return keys.length ? `${area}:${encodeKey(keys[0])}` : area;
};

/**
 * The topic of one editor in a private area. `sub` is exactly what the editor's token says, in the same case; where nodes have
 * `auth.fold_subject = true`, it is `folded(sub)`.
 */
export const privateTopic = (sub, area = 'notifications') => {
  if (/[\u0000-\u001f\u007f-\u009f]/.test(String(sub))) throw new RangeError(`${JSON.stringify(sub)} cannot be an editor: a name has no control characters`);
  return topic(area, sub);
};

/** An editor's name in lower case, letter by letter, as nodes with `auth.fold_subject = true` compare it. */
export const folded = (sub) => [...String(sub)].map((letter) => [...letter.toLowerCase()][0]).join('');
