// What the cases of the Node client share: the client, names, events, deadlines, and running the
// cases.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import path from "node:path";

// ES modules ignore NODE_PATH, so load the client from the directory that has it.
const from = path.join(path.resolve(process.env.ANNALS_NODE_MODULES ?? "."), "package.json");
export const kurrent = createRequire(from)("@kurrent/kurrentdb-client");
const { jsonEvent } = kurrent;

// How long a case waits for something that must happen, and how long it may take, in milliseconds.
const PATIENCE = 20_000;
const CASE = 90_000;

// The names that the running case uses, for the report if it fails.
const taken = [];

/** A stream, a category, a type or a group that no other case has. */
export function name(prefix = "order") {
  taken.push(`${prefix}-${randomUUID().replaceAll("-", "")}`);
  return taken.at(-1);
}

export const event = (more = {}) => jsonEvent({ type: "OrderPlaced", data: { n: 1 }, ...more });
export const events = (count, more) => Array.from({ length: count }, () => event(more));
export const ids = (found) => found.map((it) => it.id ?? it.event.id);
export const equal = assert.deepEqual;
export const check = assert.ok;

/** Fails unless this kind of error is thrown, with these fields. */
export async function throws(kind, fields, call) {
  let error;
  try {
    await call();
  } catch (thrown) {
    error = thrown;
  }
  assert.ok(error !== undefined, `${kind.name} was not thrown`);
  assert.ok(
    error instanceof kind,
    `${error.constructor.name} was thrown, not ${kind.name}: ${error.message}`,
  );
  for (const [field, expected] of Object.entries(fields)) {
    assert.deepEqual(
      error[field],
      expected,
      `${kind.name}.${field} is ${error[field]}, not ${expected}`,
    );
  }
}

export async function within(promise, what, time = PATIENCE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`in ${time} ms not: ${what}`)), time);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

export async function collect(reading) {
  const found = [];
  for await (const it of reading) found.push(it);
  return found;
}

/** Waits until the probe gives something that is true. Each try is a call to the server. */
export async function until(probe, what) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const found = await probe();
    if (found) return found;
    check(Date.now() < end, `in ${PATIENCE} ms not: ${what}`);
  }
}

/** A subscription whose events, messages and errors are taken one by one. */
export class Taker {
  constructor(subscription) {
    this.subscription = subscription;
    this.items = [];
    this.waiting = [];
    for (const kind of ["confirmation", "caughtUp"]) {
      subscription.on(kind, (info) => this.#put({ kind, info }));
    }
    subscription.on("data", (resolved) => this.#put({ kind: "event", resolved }));
    subscription.on("error", (error) => this.#put({ kind: "error", error }));
  }

  #put(item) {
    const waiting = this.waiting.shift();
    if (waiting) waiting(item);
    else this.items.push(item);
  }

  /** What comes next, whatever it is. An error is thrown. */
  async any() {
    const item = this.items.length
      ? this.items.shift()
      : await within(new Promise((resolve) => this.waiting.push(resolve)), "something comes");
    if (item.kind === "error") throw item.error;
    return item;
  }

  async next(kind = "event") {
    for (;;) {
      const item = await this.any();
      if (item.kind === kind) return kind === "event" ? item.resolved : item.info;
    }
  }

  async take(count) {
    const found = [];
    while (found.length < count) found.push(await this.next());
    return found;
  }
}

/** Uses a subscription, and ends it. */
export async function using(subscription, use) {
  const taker = new Taker(subscription);
  try {
    return await use(taker, subscription);
  } finally {
    await within(subscription.unsubscribe(), "the subscription ends");
  }
}

/** Runs every case of the themes, or those whose names contain one of the arguments. */
export async function run(themes) {
  const [url, ...only] = process.argv.slice(2);
  const client = kurrent.KurrentDBClient.connectionString(url);
  let [passed, failed] = [0, 0];
  for (const [theme, cases] of Object.entries(themes)) {
    for (const test of cases) {
      const label = `${theme}::${test.name}`;
      if (only.length && !only.some((part) => label.includes(part))) continue;
      taken.length = 0;
      try {
        await within(test(client, url), "the case ends", CASE);
        passed += 1;
        console.log(`ok ${label}`);
      } catch (error) {
        failed += 1;
        const why = String(error?.message ?? error).split("\n")[0];
        console.log(`FAILED ${label}: ${why}\n  with ${taken.join(", ")}\n${error?.stack ?? ""}\n`);
      }
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  // Exit without waiting for subscriptions that did not end.
  process.exit(failed || !passed ? 1 : 0);
}
