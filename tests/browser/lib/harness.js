// A small test runner: tests one after the other, each with a list of what to clean up, and one line at the end that counts.
const tests = [];
export const test = (name, body) => tests.push({ name, body, file: current });
let current = '';
export const file = (name) => { current = name; };

/** Waits for a condition with a deadline, and says what was awaited. */
export async function until(what, check, ms = 30_000) {
  const end = Date.now() + ms;
  for (let last; ;) {
    try { const value = await check(); if (value) return value; last = undefined; } catch (error) { last = error; }
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}${last ? ` (${last.message})` : ''}`);
    await new Promise((go) => setTimeout(go, 40));
  }
}
export const pause = (ms) => new Promise((go) => setTimeout(go, ms));

let after = [];
/** Ends what the running test has started, last things first. */
export async function cleanUp() {
  const all = after.reverse();
  after = [];
  for (const f of all) { try { await f(); } catch (error) { console.log(`        cleaning up: ${error.message}`); } }
}

const trace = (error) => String(error.stack ?? error).replace(/^/gm, '        ');

/** Runs a test and cleans up behind it; returns what went wrong. */
async function once(file, name, body) {
  const begun = Date.now();
  let timer, wrong;
  try {
    await Promise.race([
      body({ after: (f) => after.push(f) }),
      new Promise((_, no) => { timer = setTimeout(() => no(new Error('the test took longer than 150 s')), 150_000); }),
    ]);
    console.log(`ok      ${file}: ${name} (${Date.now() - begun} ms)`);
  } catch (error) {
    wrong = error ?? new Error('the test failed and did not say why');
  }
  clearTimeout(timer);
  await cleanUp();
  return wrong;
}

/** Runs the tests that have one of these words in their names. As with the Rust tests, CI runs a test that fails once more, and
 *  says so: the report is to be read, and the test mended. */
export async function run(words) {
  let passed = 0, failed = 0;
  for (const { name, body, file } of tests) {
    if (words.length && !words.some((w) => `${file} ${name}`.includes(w))) continue;
    let error = await once(file, name, body);
    if (error && process.env.CI) {
      console.log(`FLAKY?  ${file}: ${name}\n${trace(error)}`);
      error = await once(file, name, body);
    }
    if (error) { failed++; console.log(`FAILED  ${file}: ${name}\n${trace(error)}`); } else passed++;
  }
  console.log(`${passed} passed, ${failed} failed`);
  return failed === 0;
}
