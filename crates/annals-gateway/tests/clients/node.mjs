// The Node client @kurrent/kurrentdb-client, which is in the `node_modules` of the directory that
// ANNALS_NODE_MODULES names: `node node.mjs esdb://… [part of a name]…`.

import append from "./node_append.mjs";
import connect from "./node_connect.mjs";
import groups from "./node_groups.mjs";
import manage from "./node_manage.mjs";
import read from "./node_read.mjs";
import subscribe from "./node_subscribe.mjs";
import { run } from "./common.mjs";

await run({ connect, append, read, subscribe, groups, manage });
