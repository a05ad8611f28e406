// Persistent subscriptions: their settings, lists, limits, and ends.

import { check, equal, kurrent, name, throws, until, using } from "./common.mjs";
import { consume, groupOf, info } from "./node_groups.mjs";

const {
  END,
  PINNED,
  PersistentSubscriptionDoesNotExistError,
  PersistentSubscriptionDroppedError,
  PersistentSubscriptionExistsError,
  PersistentSubscriptionMaximumSubscribersReachedError,
  START,
  UNBOUNDED,
  persistentSubscriptionToAllSettingsFromDefaults: settingsOfAll,
  persistentSubscriptionToStreamSettingsFromDefaults: settingsOfStream,
} = kurrent;

async function settings_are_kept_and_changed(client) {
  const settings = {
    resolveLinkTos: true,
    extraStatistics: true,
    messageTimeout: 12_500,
    maxRetryCount: 7,
    checkPointAfter: 1_500,
    checkPointLowerBound: 3,
    checkPointUpperBound: 300,
    maxSubscriberCount: 4,
    liveBufferSize: 60,
    readBatchSize: 25,
    historyBufferSize: 70,
    consumerStrategyName: PINNED,
    startFrom: START,
  };
  const group = await groupOf(client, 3, settings);
  const found = await info(client, group);
  equal([found.eventSource, found.groupName], [group.stream, group.group]);
  equal(found.settings, settings);
  equal(found.connections, []);
  const changed = { ...settings, maxSubscriberCount: UNBOUNDED, maxRetryCount: 1 };
  await client.updatePersistentSubscriptionToStream(group.stream, group.group, changed);
  equal((await info(client, group)).settings, changed);
  const everywhere = name("group");
  await client.createPersistentSubscriptionToAll(everywhere, settingsOfAll({ startFrom: START }));
  const update = settingsOfAll({ startFrom: START, messageTimeout: 2_000 });
  await client.updatePersistentSubscriptionToAll(everywhere, update);
  equal((await client.getPersistentSubscriptionToAllInfo(everywhere)).settings, update);
  await client.deletePersistentSubscriptionToAll(everywhere);
}

async function a_new_start_is_kept(client) {
  const group = await groupOf(client, 3);
  for (const startFrom of [2n, END]) {
    const settings = settingsOfStream({ startFrom });
    await client.updatePersistentSubscriptionToStream(group.stream, group.group, settings);
    equal((await info(client, group)).settings, settings);
  }
  const everywhere = name("group");
  await client.createPersistentSubscriptionToAll(everywhere, settingsOfAll({ startFrom: START }));
  const settings = settingsOfAll({ startFrom: END });
  await client.updatePersistentSubscriptionToAll(everywhere, settings);
  equal((await client.getPersistentSubscriptionToAllInfo(everywhere)).settings, settings);
  await client.deletePersistentSubscriptionToAll(everywhere);
}

async function lists(client) {
  const { stream, group } = await groupOf(client, 1);
  const [second, everywhere] = [name("group"), name("group")];
  await client.createPersistentSubscriptionToStream(stream, second, settingsOfStream());
  await client.createPersistentSubscriptionToAll(everywhere, settingsOfAll());
  const names = (found) => found.map((it) => it.groupName).sort();
  equal(names(await client.listPersistentSubscriptionsToStream(stream)), [group, second].sort());
  check(
    names(await client.listPersistentSubscriptionsToAll()).includes(everywhere),
    "$all's is not listed",
  );
  const all = names(await client.listAllPersistentSubscriptions());
  check(
    [group, second, everywhere].every((it) => all.includes(it)),
    `listed: ${all}`,
  );
  await client.deletePersistentSubscriptionToStream(stream, second);
  await client.deletePersistentSubscriptionToAll(everywhere);
  equal(names(await client.listPersistentSubscriptionsToStream(stream)), [group]);
}

async function a_group_exists_once(client) {
  const { stream, group } = await groupOf(client, 1);
  const fields = { streamName: stream, groupName: group };
  const again = () =>
    client.createPersistentSubscriptionToStream(stream, group, settingsOfStream());
  await throws(PersistentSubscriptionExistsError, fields, again);
  const all = () => client.createPersistentSubscriptionToAll(group, settingsOfAll());
  await all();
  await throws(PersistentSubscriptionExistsError, { groupName: group }, all);
  await client.deletePersistentSubscriptionToAll(group);
}

async function a_missing_group_is_not_found(client) {
  const [stream, group] = [name(), name("group")];
  const missing = (fields, call) => throws(PersistentSubscriptionDoesNotExistError, fields, call);
  const ofStream = { streamName: stream, groupName: group };
  await missing(ofStream, () => client.getPersistentSubscriptionToStreamInfo(stream, group));
  await missing(ofStream, () => client.deletePersistentSubscriptionToStream(stream, group));
  await missing(ofStream, () => client.replayParkedMessagesToStream(stream, group));
  const update = () =>
    client.updatePersistentSubscriptionToStream(stream, group, settingsOfStream());
  await missing(ofStream, update);
  await missing(ofStream, () => consume(client, { stream, group }, (taker) => taker.next()));
  const ofAll = { groupName: group };
  await missing(ofAll, () => client.getPersistentSubscriptionToAllInfo(group));
  await missing(ofAll, () => client.deletePersistentSubscriptionToAll(group));
  const all = () => client.subscribeToPersistentSubscriptionToAll(group);
  await missing(ofAll, () => using(all(), (taker) => taker.next()));
}

async function subscribers_are_counted(client) {
  const group = await groupOf(client, 1, { maxSubscriberCount: 1 });
  const fields = { streamName: group.stream, groupName: group.group };
  await consume(client, group, async (taker) => {
    await taker.next();
    const second = () => consume(client, group, (other) => other.next());
    await throws(PersistentSubscriptionMaximumSubscribersReachedError, fields, second);
  });
  await until(
    async () => (await info(client, group)).connections.length === 0,
    "the consumer is gone",
  );
  await consume(client, group, (taker) => taker.next());
}

async function deleting_a_group_ends_its_consumers(client) {
  const group = await groupOf(client, 1);
  const fields = { streamName: group.stream, groupName: group.group };
  await consume(client, group, async (taker) => {
    await taker.next();
    await client.deletePersistentSubscriptionToStream(group.stream, group.group);
    await throws(PersistentSubscriptionDroppedError, fields, () => taker.next());
  });
}

export default [
  settings_are_kept_and_changed,
  a_new_start_is_kept,
  lists,
  a_group_exists_once,
  a_missing_group_is_not_found,
  subscribers_are_counted,
  deleting_a_group_ends_its_consumers,
];
