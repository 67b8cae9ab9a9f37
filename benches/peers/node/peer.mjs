// The driver of Node's graphile-worker. benches/peers.rs describes its words and lines.
//
// The best settings are those of its documentation, page Performance: a local queue, and completions in batches.
// Neither settings log each job, because its own perfTest does not.

import { Logger, makeWorkerUtils, run, runMigrations } from "graphile-worker";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

const connectionString = process.env.DATABASE_URL;
const logger = new Logger(() => () => {});
const nowUs = () => Math.round((performance.timeOrigin + performance.now()) * 1000);
const [word, settings, ...rest] = process.argv.slice(2);

async function add(jobs, batch) {
  const utils = await makeWorkerUtils({ connectionString, logger });
  for (let left = jobs; left > 0; left -= batch) {
    await utils.addJobs(Array.from({ length: Math.min(batch, left) }, () => ({ identifier: "noop", payload: {} })));
  }
  await utils.release();
}

async function trickle(jobs) {
  const client = new pg.Client({ connectionString });
  await client.connect();
  const start = performance.now();
  for (let n = 0; n < jobs; n++) {
    await sleep(Math.max(0, start + n * 10 - performance.now()));
    await client.query("begin");
    await client.query("select graphile_worker.add_job('stamp', $1::json)", [{ n }]);
    console.log(`added ${n} ${nowUs()}`);
    await client.query("commit");
  }
  await client.end();
}

async function work(concurrency) {
  const best = {
    concurrentJobs: 24,
    maxPoolSize: 25,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  };
  const worker = {
    ...(settings === "best" ? best : {}),
    ...(concurrency ? { concurrentJobs: concurrency, maxPoolSize: concurrency + 1 } : {}),
  };
  let [ran, printed] = [0, 0];
  setInterval(() => {
    if (ran !== printed) console.log(`ran ${(printed = ran)}`);
  }, 10).unref();
  console.log("ready");
  await once(process.stdin, "data");
  // The bench has ended.
  process.stdin.on("end", () => process.exit(1));
  const runner = await run({
    preset: { worker: { connectionString, logger, ...worker } },
    taskList: {
      noop: () => void ran++,
      stamp: ({ n }) => console.log(`at ${n} ${nowUs()}`),
    },
  });
  await runner.promise;
  process.exit();
}

switch (word) {
  case "version": {
    const file = new URL("node_modules/graphile-worker/package.json", import.meta.url);
    console.log(`graphile-worker ${JSON.parse(readFileSync(file)).version} (Node.js ${process.versions.node})`);
    break;
  }
  case "setup":
    await runMigrations({ connectionString, logger });
    break;
  case "add":
    await add(Number(rest[0]), Number(rest[1]));
    break;
  case "trickle":
    await trickle(Number(rest[0]));
    break;
  case "work":
    await work(Number(rest[0]));
    break;
  default:
    throw new Error("unknown words");
}
