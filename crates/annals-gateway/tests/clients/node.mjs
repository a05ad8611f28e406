// The Node client @kurrent/kurrentdb-client. ANNALS_NODE_MODULES names the directory whose
// `node_modules` has the client: `node node.mjs esdb://… [part of the name of a case]…`.

import append from "./node_append.mjs";
import connect from "./node_connect.mjs";
import groups from "./node_groups.mjs";
import manage from "./node_manage.mjs";
import read from "./node_read.mjs";
import subscribe from "./node_subscribe.mjs";
import { run } from "./common.mjs";

await run({ connect, append, read, subscribe, groups, manage });
