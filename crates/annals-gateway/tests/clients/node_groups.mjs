// Persistent subscriptions: groups of consumers whose progress the server keeps.

import { equal, event, events, ids, kurrent, name, until, using } from "./common.mjs";

const {
  DISPATCH_TO_SINGLE,
  END,
  PARK,
  RETRY,
  ROUND_ROBIN,
  SKIP,
  START,
  persistentSubscriptionToAllSettingsFromDefaults: settingsOfAll,
  persistentSubscriptionToStreamSettingsFromDefaults: settingsOfStream,
  streamNameFilter,
} = kurrent;

/** A group on a stream with events, and the events. */
export async function groupOf(client, count, changes = {}) {
  const [stream, group, new_] = [name(), name("group"), events(count)];
  if (count) await client.appendToStream(stream, new_);
  const settings = settingsOfStream({ startFrom: START, ...changes });
  await client.createPersistentSubscriptionToStream(stream, group, settings);
  return { stream, group, new_ };
}

export const consume = (client, { stream, group }, use, options) =>
  using(client.subscribeToPersistentSubscriptionToStream(stream, group, options), use);

export const info = (client, { stream, group }) =>
  client.getPersistentSubscriptionToStreamInfo(stream, group);

const acked = (client, group) =>
  until(
    async () => (await info(client, group)).stats.totalInFlightMessages === 0,
    "all is acknowledged",
  );

const parked = (client, group, count) =>
  until(
    async () => (await info(client, group)).stats.parkedMessageCount === count,
    `${count} are parked`,
  );

/** Fails unless nothing but a new event is left for a new consumer. */
async function isSilent(client, group) {
  const one = event();
  await client.appendToStream(group.stream, one);
  await consume(client, group, async (taker, subscription) => {
    const found = await taker.next();
    equal(found.event.id, one.id);
    await subscription.ack(found);
    await acked(client, group);
  });
}

async function a_stream_is_consumed(client) {
  const group = await groupOf(client, 5);
  await consume(client, group, async (taker, subscription) => {
    equal((await taker.any()).kind, "confirmation");
    equal(subscription.id, `${group.stream}::${group.group}`);
    const found = await taker.take(5);
    equal(ids(found), ids(group.new_));
    equal(
      found.map((it) => [it.event.revision, it.retryCount]),
      [0n, 1n, 2n, 3n, 4n].map((at) => [at, 0]),
    );
    await subscription.ack(...found);
    const live = event();
    await client.appendToStream(group.stream, live);
    const it = await taker.next();
    equal([it.event.id, it.event.revision], [live.id, 5n]);
    await subscription.ack(it);
    await acked(client, group);
  });
  await isSilent(client, group);
}

async function what_is_not_acknowledged_comes_again(client) {
  const group = await groupOf(client, 4);
  await consume(client, group, async (taker, subscription) => {
    const found = await taker.take(4);
    await subscription.ack(found[0], found[1]);
    await until(
      async () => (await info(client, group)).stats.totalInFlightMessages === 2,
      "two are",
    );
  });
  await consume(client, group, async (taker) => {
    equal(ids(await taker.take(2)).sort(), ids(group.new_.slice(2)).sort());
  });
}

async function starts_where_it_is_told(client) {
  const [stream, new_, one] = [name(), events(3), event()];
  await client.appendToStream(stream, new_);
  const [middle, end] = [
    { stream, group: name("group") },
    { stream, group: name("group") },
  ];
  const create = (group, startFrom) =>
    client.createPersistentSubscriptionToStream(
      stream,
      group.group,
      settingsOfStream({ startFrom }),
    );
  await create(middle, 1n);
  await create(end, END);
  equal((await info(client, middle)).settings.startFrom, 1n);
  equal((await info(client, end)).settings.startFrom, END);
  await consume(client, middle, async (taker) => {
    // The group begins with the event at the revision.
    equal(ids(await taker.take(2)), ids(new_.slice(1)));
  });
  await consume(client, end, async (taker) => {
    await client.appendToStream(stream, one);
    equal((await taker.next()).event.id, one.id);
  });
}

async function retry_and_skip(client) {
  const group = await groupOf(client, 2);
  await consume(client, group, async (taker, subscription) => {
    const [first, second] = await taker.take(2);
    await subscription.nack(RETRY, "once more", first);
    const again = await taker.next();
    equal([again.event.id, again.retryCount], [first.event.id, 1]);
    await subscription.nack(SKIP, "not wanted", again, second);
    await acked(client, group);
  });
  equal((await info(client, group)).stats.parkedMessageCount, 0n);
  await isSilent(client, group);
}

async function park_and_replay(client) {
  const group = await groupOf(client, 3);
  await consume(client, group, async (taker, subscription) => {
    const found = await taker.take(3);
    await subscription.nack(PARK, "not now", found[0], found[2]);
    await subscription.ack(found[1]);
    await parked(client, group, 2n);
    await client.replayParkedMessagesToStream(group.stream, group.group, { stopAt: 1 });
    const first = await taker.next();
    equal(first.event.id, group.new_[0].id);
    await subscription.ack(first);
    await parked(client, group, 1n);
    await client.replayParkedMessagesToStream(group.stream, group.group);
    const second = await taker.next();
    equal(second.event.id, group.new_[2].id);
    await subscription.ack(second);
    await parked(client, group, 0n);
    await acked(client, group);
  });
  await isSilent(client, group);
}

async function too_many_retries_park(client) {
  const group = await groupOf(client, 1, { maxRetryCount: 1 });
  await consume(client, group, async (taker, subscription) => {
    for (const count of [0, 1]) {
      const it = await taker.next();
      equal([it.event.id, it.retryCount], [group.new_[0].id, count]);
      await subscription.nack(RETRY, "again", it);
    }
    await parked(client, group, 1n);
  });
}

async function no_answer_in_time_comes_again(client) {
  const group = await groupOf(client, 1, { messageTimeout: 300 });
  await consume(client, group, async (taker, subscription) => {
    equal((await taker.next()).retryCount, 0);
    const it = await taker.next();
    equal(it.retryCount, 1);
    await subscription.ack(it);
    await acked(client, group);
  });
}

async function consumers_share(client) {
  const group = await groupOf(client, 0, { consumerStrategyName: ROUND_ROBIN });
  await consume(client, group, async (one) => {
    await one.next("confirmation");
    await consume(client, group, async (two) => {
      await two.next("confirmation");
      const new_ = events(10);
      await client.appendToStream(group.stream, new_);
      const found = [...(await one.take(5)), ...(await two.take(5))];
      equal(ids(found).sort(), ids(new_).sort());
      equal((await info(client, group)).connections.length, 2);
    });
  });
}

async function one_gets_all_it_can_take(client) {
  const group = await groupOf(client, 10, { consumerStrategyName: DISPATCH_TO_SINGLE });
  const use = async (one) => {
    await one.next("confirmation");
    await consume(client, group, async () => equal(ids(await one.take(10)), ids(group.new_)));
  };
  await consume(client, group, use, { bufferSize: 20 });
}

async function to_all(client) {
  const [tag, group, new_] = [name("f"), name("group"), events(3)];
  const { position } = await client.appendToStream(`${tag}-1`, new_[0]);
  await client.appendToStream(name(), events(20));
  await client.appendToStream(`${tag}-2`, new_[1]);
  const options = { filter: streamNameFilter({ prefixes: [tag] }) };
  const settings = settingsOfAll({ startFrom: position });
  await client.createPersistentSubscriptionToAll(group, settings, options);
  const ofGroup = () => client.getPersistentSubscriptionToAllInfo(group);
  equal([(await ofGroup()).eventSource, (await ofGroup()).settings.startFrom], ["$all", position]);
  const subscribe = () => client.subscribeToPersistentSubscriptionToAll(group);
  await using(subscribe(), async (taker, subscription) => {
    // The group begins with the event at the position.
    const found = await taker.take(2);
    equal(ids(found), ids(new_.slice(0, 2)));
    equal(subscription.id, `$all::${group}`);
    await subscription.nack(PARK, "not now", found[0]);
    await subscription.ack(found[1]);
    await until(async () => (await ofGroup()).stats.parkedMessageCount === 1n, "one is parked");
    await client.replayParkedMessagesToAll(group);
    const again = await taker.next();
    equal(again.event.id, new_[0].id);
    await client.appendToStream(name(), event());
    await client.appendToStream(`${tag}-1`, new_[2]);
    const live = await taker.next();
    equal(live.event.id, new_[2].id);
    await subscription.ack(again, live);
    await until(
      async () => (await ofGroup()).stats.totalInFlightMessages === 0,
      "all is acknowledged",
    );
  });
  await client.deletePersistentSubscriptionToAll(group);
}

async function resolves_links(client) {
  const category = name("cat").replace("-", "");
  const group = { stream: `$ce-${category}`, group: name("group") };
  const [new_, settings] = [
    events(3),
    settingsOfStream({ startFrom: START, resolveLinkTos: true }),
  ];
  await client.appendToStream(`${category}-1`, new_.slice(0, 2));
  await client.createPersistentSubscriptionToStream(group.stream, group.group, settings);
  await consume(client, group, async (taker, subscription) => {
    const found = await taker.take(2);
    await client.appendToStream(`${category}-2`, new_[2]);
    found.push(await taker.next());
    equal(ids(found), ids(new_));
    equal(
      found.map((it) => it.link.streamId),
      Array(3).fill(group.stream),
    );
    await subscription.ack(...found);
    await acked(client, group);
  });
}

export default [
  a_stream_is_consumed,
  what_is_not_acknowledged_comes_again,
  starts_where_it_is_told,
  retry_and_skip,
  park_and_replay,
  too_many_retries_park,
  no_answer_in_time_comes_again,
  consumers_share,
  one_gets_all_it_can_take,
  to_all,
  resolves_links,
];
