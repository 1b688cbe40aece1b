//! The token of a link: when it is asked for, how long it is good, when it is renewed; and the budget that all that a
//! link asks of servers and pages is paid from.

import { SignedOut, around, claims, flawOf, textOf } from './protocol.js';

/** Requests, sockets and `token()` calls in any ten seconds, whatever servers answer. */
const MOST = 28;
const WINDOW = 10_000;

export class Budget {
  spent = /** @type {number[]} */ ([]);

  constructor(env) { this.env = env; }

  /** Waits until one more request, socket or `token()` call may be made. */
  async spend(signal) {
    for (;;) {
      if (signal?.aborted) throw new Error();
      const at = this.env.now();
      while (this.spent[0] <= at - WINDOW) this.spent.shift();
      if (this.spent.length < MOST) return void this.spent.push(at);
      await new Promise((go) => { this.env.set(go, this.spent[0] + WINDOW - at + 1); });
    }
  }
}

/** ms between two renewals. */
const PACE = 1500;
/** ms until a token that has been kept by the CMS is asked for again. */
const KEPT = 5000;
/** ms before its end at which a token is not used any more, at most. */
const MARGIN = 60_000;

export class Tokens {
  token = /** @type {string | null} */ (null);
  until = -1;    // good until then
  askedFor = new Set();    // the topics that it was asked for
  askedAt = -Infinity;

  /** @param {import('./link.js').Link} link */
  constructor(link) {
    this.link = link;
    this.env = link.env;
  }

  /** Sees to it that there is a token that is good; false: there is none, and it has been said why. */
  async fresh(signal) {
    const { link, env } = this;
    if (this.until > env.now()) return true;
    const asked = [...link.subscriptions.byName.keys()];
    this.askedAt = env.now();
    let token, wrong;
    try {
      token = await link.o.token(asked, () => link.budget.spend(signal));
      wrong = token !== null && flawOf(token) && `gave ${flawOf(token)}`;
    } catch (error) {
      if (error instanceof SignedOut && !signal.aborted) link.step('end', { off: 'signed-out' });
      wrong = `failed: ${textOf(error)}`;
    }
    if (signal.aborted) return false;
    if (wrong) {
      link.say('token', token ? 'error' : 'warn', `token() ${wrong}. Live updates begin when it works.`);
      return false;
    }
    this.askedFor = new Set(asked);
    this.token = token;
    const { exp, iat } = claims(token ?? '') ?? {};
    this.lasts(exp > iat ? (exp - iat) * 1000 : MARGIN);    // a node says better how long
    return true;
  }

  lasts(ms) { this.until = this.env.now() + ms - Math.min(MARGIN, ms / 10); }

  /** @param {boolean} [refused]  by the node, and it had not come to its end in a connection */
  forget(refused) {
    const what = !this.token ? 'cookie' : claims(this.token) ? 'token' : 'token, which is no JWT';
    if (refused) this.link.say('refused', 'error', `The node refuses the ${what}.`);
    this.token = null;
    this.until = -1;
  }

  /** What the node says of the token in use. @param {number | undefined} seconds */
  expires(seconds) {
    if (seconds == null) return void (this.until = Infinity);
    const ms = Math.max(0, seconds * 1000);
    this.lasts(ms);
    this.renewIn(Math.min(ms - around(Math.min(MARGIN, ms / 4)), 2 ** 31 - 1));
  }

  renewIn(ms) { this.link.later('token', Math.max(ms, this.askedAt + PACE - this.env.now(), 1000), () => this.renew()); }

  /** The node goes on with the old one while it lasts. */
  bad() { this.renewIn(KEPT); }

  /** What was refused may be allowed by a token that is asked for with these topics in mind. */
  refused(refused) {
    if (refused.some(({ topic, code }) => code === 'forbidden' && !this.askedFor.has(topic) && this.link.subscriptions.byName.has(topic))) this.renew();
  }

  /** Before the token ends. A stream has no way up, so it opens again. */
  async renew(wait = 2000) {
    const { link, env, token: old, until } = this;
    const { session } = link;
    const { signal } = link.run;
    if (link.state !== 'open') return;
    if (env.now() - this.askedAt < PACE) return this.renewIn(0);
    this.until = -1;
    const good = await this.fresh(signal);
    if (signal.aborted) return;
    if (!good) {
      this.until = until;
      link.later('token', around(wait), () => this.renew(Math.min(wait * 2, 30_000)));
    } else if (this.token === old) {    // kept by the CMS: it is good until it ends
      this.until = until;
      this.renewIn(Math.max(KEPT, (until - env.now()) / 2));
    } else if (session.pipe.send) session.send({ type: 'token', token: this.token });
    else if (session.kind === 'sse' || link.subscriptions.named('refused').length) session.end({ planned: true });
    else this.renewIn(this.until - env.now());
  }
}
