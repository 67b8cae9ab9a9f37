// Tests workers: this library and each peer run jobs at the same time, on a schema that one of them has
// installed. Also tests installations of both at the same time.
//   node workers.mjs node rust
// Needs the same as database.mjs; for rust also V13 and V14, the programs of rust/v13 and rust/v14.

import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { changes, inDatabase, ledger, nodeMigrate, objects, ours, query, quietly } from "./database.mjs";

const PLAIN = 50; // Jobs that each side adds for each task, half of them while both workers run.
const SPECIAL = 5; // Keyed jobs, and queued jobs.
// Milliseconds from the peer's installation to this library's, in each round of the race.
const LATER = [-150, -60, -30, 0, 30, 60, 100, 150];
const INSTALLS = 16;

const KNOWN = { breaking: [1, 3, 11, 13, 14, 16] };
const ids = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

// Node's later migrations: 19 marks that a pool holds the locks; 20 replaces the functions that add jobs.
const nodePeer = (gw, version, max) => ({
  name: `node ${version}`,
  database: gw,
  max,
  breaking: [...KNOWN.breaking, 19],
  changes: max < 20 ? [] : ["changed FUNCTION add_job(", "changed FUNCTION add_jobs("],
  migrate: (url) => nodeMigrate(url, gw),
  async add(url, task, count, kind = "plain") {
    const { makeWorkerUtils, logger } = await quietly(gw);
    const utils = await makeWorkerUtils({ connectionString: url, logger });
    try {
      for (let n = 0; n < count; n++) {
        const payload = (last) => ({ from: "theirs", task, kind, n, last });
        const spec = kind === "keyed" ? { jobKey: `${task} ${n}` } : kind === "queued" ? { queueName: "shared" } : {};
        if (kind === "keyed") await utils.addJob(task, payload(false), spec);
        await utils.addJob(task, payload(true), spec);
      }
    } finally {
      await utils.release();
    }
  },
  async work(url) {
    const { run, logger } = await quietly(gw);
    const record = async (payload, { job, query }) => {
      await query("insert into interop_ledger (job_id, who, payload) values ($1, 'theirs', $2)", [job.id, payload]);
    };
    const taskList = { theirs: record, both: record };
    const runner = await run({ connectionString: url, logger, noHandleSignals: true, concurrency: 4, pollInterval: 100, taskList });
    return () => runner.stop();
  },
});

const rustPeer = (name, program, max, mayChange) => {
  const peer = (...words) => promisify(execFile)(program, words);
  return {
    name: `rust ${name}`,
    database: `rust_${name.replaceAll(".", "_")}`,
    max,
    breaking: KNOWN.breaking,
    changes: mayChange,
    migrate: (url) => peer(url, "migrate"),
    add: (url, task, count, kind = "plain") => peer(url, "add", task, `${count}`, ...(kind === "plain" ? [] : [`--${kind}`])),
    async work(url) {
      const ended = peer(url, "work", "theirs", "both", "--ledger-table", "interop_ledger", "--until-empty-for", "1000");
      return () => ended;
    },
  };
};

// The changes of the async crate's migrations 19 to 22, from its documentation.
const ADDING = ["changed FUNCTION add_job(", "changed FUNCTION add_jobs("];
const RECOVERY = [
  "added TABLE _private_workers", "added CONSTRAINT _private_workers _private_workers_pkey",
  "added INDEX _private_workers_last_heartbeat_at_idx", "added FUNCTION worker_heartbeat(", "added FUNCTION worker_deregister(",
  "added FUNCTION list_stale_workers(", "added FUNCTION list_orphan_locked_workers(", "added FUNCTION recover_dead_worker_jobs(",
  "added FUNCTION delete_stale_workers(",
];
const RETIREMENTS = [
  "added TABLE _private_job_retirements", "added CONSTRAINT _private_job_retirements ", "added FK CONSTRAINT _private_job_retirements ",
  "added FUNCTION _private_return_jobs(", "changed FUNCTION remove_job(", "changed FUNCTION permanently_fail_jobs(",
  "changed FUNCTION reschedule_jobs(",
];

const ALL = {
  node: () => [nodePeer("gw16", "0.16.6", 18), nodePeer("gw17", "0.17.3", 19), nodePeer("gw18", "0.18.0", 20)],
  rust: () => [
    rustPeer("0.13.5", process.env.V13, 20, [...ADDING, ...RECOVERY]),
    rustPeer("0.14.1", process.env.V14, 22, [...ADDING, ...RECOVERY, ...RETIREMENTS]),
  ],
};

const us = {
  name: "ours",
  changes: [
    "added INDEX _native_jobs_queue",
    ...["_native_migrations", "_native_workers", "_native_recoveries", "_native_crontabs"].flatMap((table) => [
      `added TABLE ${table}`, `added CONSTRAINT ${table} ${table}_pkey`, `added ROW SECURITY ${table}`,
    ]),
  ],
  migrate: (url) => ours(url, "migrate"),
  add: (url, task, count, kind = "plain") => ours(url, "add", task, `${count}`, ...(kind === "plain" ? [] : [`--${kind}`])),
  async work(url) {
    const ended = ours(url, "work", "ours", "both", "--ledger-table", "interop_ledger", "--until-empty-for", "1000");
    return () => ended;
  },
};

// The trigger delays each insert for a job of the queue, and records whether another such insert runs at the same time.
const LEDGER_TABLE = `
  create table interop_ledger (job_id bigint, who text, payload json, overlapped boolean not null default false);
  create function alone() returns trigger language plpgsql as $$
  begin
    if new.payload->>'kind' = 'queued' then
      new.overlapped := not pg_try_advisory_xact_lock(1);
      perform pg_sleep(0.02);
    end if;
    return new;
  end $$;
  create trigger alone before insert on interop_ledger for each row execute function alone()`;

const tally = (lines) => lines.reduce((counts, line) => counts.set(line, (counts.get(line) ?? 0) + 1), new Map());
const unlike = (what, expected, found) =>
  [...new Set([...expected.keys(), ...found.keys()])]
    .filter((line) => (expected.get(line) ?? 0) !== (found.get(line) ?? 0))
    .map((line) => `${what}: ${line}: ${found.get(line) ?? 0} instead of ${expected.get(line) ?? 0}`);

const undocumented = (who, before, after) =>
  changes(before, after)
    .filter((change) => !who.changes.some((allowed) => change.startsWith(allowed)))
    .map((change) => `${who.name} changed the schema: ${change}`);

async function migrations(url, peer) {
  const row = ({ id, breaking }) => `${id}${breaking ? " breaking" : ""}`;
  const expected = ids(1, peer.max).map((id) => row({ id, breaking: peer.breaking.includes(id) }));
  return unlike("the ledger of migrations", tally(expected), tally((await ledger(url)).map(row)));
}

// One side installs the schema, the other starts on it. Then both run jobs.
async function sideBySide(peer, first, second) {
  return await inDatabase(`interop_${peer.database}`, async (url) => {
    const wrong = [];
    await first.migrate(url);
    const installed = objects(url);
    await second.migrate(url);
    const taken = objects(url);
    wrong.push(...undocumented(second, installed, taken), ...(await migrations(url, peer)));
    await first.migrate(url);
    wrong.push(...changes(taken, objects(url)).map((change) => `${first.name} changed the schema at its next start: ${change}`));

    await query(url, LEDGER_TABLE);
    const half = async () => {
      await Promise.all([us.add(url, "theirs", PLAIN / 2), us.add(url, "both", PLAIN / 2)]);
      await Promise.all([peer.add(url, "ours", PLAIN / 2), peer.add(url, "both", PLAIN / 2)]);
    };
    await half();
    for (const kind of ["keyed", "queued"]) {
      await Promise.all([us.add(url, "theirs", SPECIAL, kind), peer.add(url, "ours", SPECIAL, kind)]);
    }
    const started = Date.now();
    const stops = await Promise.all([us.work(url), peer.work(url)]);
    await until(url, "select count(distinct who) = 2 as yes from interop_ledger");
    await half();
    // The worker of this library ends by itself when no jobs are left.
    for (const stop of stops) await stop();
    const seconds = ((Date.now() - started) / 1000).toFixed(1);

    const rows = await query(url, "select job_id, who, payload, overlapped from interop_ledger");
    const found = rows.map(({ payload }) => JSON.stringify(payload, Object.keys(payload).sort()));
    wrong.push(...unlike("runs", tally(expectedRuns()), tally(found)));
    if (new Set(rows.map((row) => row.job_id)).size !== rows.length) wrong.push("a job ran twice");
    for (const { who, payload, overlapped } of rows) {
      if (payload.task !== "both" && payload.task !== who) wrong.push(`${who} ran a job of task ${payload.task}`);
      if (overlapped) wrong.push(`jobs of one queue overlapped: ${JSON.stringify(payload)}`);
    }
    for (const job of await query(url, "select * from graphile_worker.jobs")) wrong.push(`left: ${JSON.stringify(job)}`);
    for (const queue of await query(url, "select * from graphile_worker._private_job_queues where locked_at is not null or locked_by is not null")) {
      wrong.push(`a queue is still locked: ${JSON.stringify(queue)}`);
    }
    if (objects(url).has("TABLE _private_workers")) {
      const left = await query(url, "select id from graphile_worker._private_workers");
      wrong.push(...left.map(({ id }) => `still listed as alive: ${id}`));
    }
    wrong.push(...changes(taken, objects(url)).map((change) => `the schema changed while working: ${change}`));
    wrong.push(...(await migrations(url, peer)));
    const by = (who, task) => rows.filter((row) => row.who === who && row.payload.task === task).length;
    return { wrong, what: `ours ${by("ours", "ours")}, theirs ${by("theirs", "theirs")}, both ${by("ours", "both")}+${by("theirs", "both")}, ${seconds} s` };
  });
}

// Returns one line for every run that the ledger must have, with the keys in alphabetical order.
function expectedRuns() {
  const lines = [];
  const add = (from, task, kind, count) => {
    for (let n = 0; n < count; n++) lines.push(JSON.stringify({ from, kind, last: true, n, task }));
  };
  for (const [from, task] of [["ours", "theirs"], ["theirs", "ours"]]) {
    for (const which of [task, task, "both", "both"]) add(from, which, "plain", PLAIN / 2);
    for (const kind of ["keyed", "queued"]) add(from, task, kind, SPECIAL);
  }
  return lines;
}

async function until(url, question) {
  for (let tries = 0; tries < 600; tries++) {
    const [{ yes }] = await query(url, question);
    if (yes) return;
    await new Promise((next) => setTimeout(next, 50));
  }
  throw new Error(`timeout while waiting for: ${question}`);
}

// Several installations of this library run at the same time as one of the peer. This library's must not fail.
// At the end the schema must be exactly the one that results when either of the two installs first.
async function race(peer) {
  const alone = await Promise.all([[us, peer], [peer, us]].map(([first, second], i) =>
    inDatabase(`interop_alone_${i}`, async (url) => {
      await first.migrate(url);
      await second.migrate(url);
      return objects(url);
    })));
  const wrong = [];
  const theirErrors = [];
  let weWon = 0;
  for (const later of LATER) {
    await inDatabase("interop_race", async (url) => {
      const pause = (milliseconds) => new Promise((next) => setTimeout(next, milliseconds));
      const theirs = pause(-later).then(() => peer.migrate(url)).catch((error) => {
        theirErrors.push(`${error.code ?? ""} ${error.stderr || error.message}`.trim());
        return error;
      });
      await pause(later);
      const results = await Promise.allSettled(ids(1, INSTALLS).map(() => us.migrate(url)));
      wrong.push(...results.filter((one) => one.status === "rejected").map((one) => `ours: ${one.reason.stderr ?? one.reason}`));
      if (await theirs) await peer.migrate(url);
      wrong.push(...(await migrations(url, peer)));
      const left = alone.map((expected) => changes(expected, objects(url)));
      weWon += left[0].length === 0;
      if (left.every((list) => list.length > 0)) wrong.push(`${later} ms later: ${left.sort((a, b) => a.length - b.length)[0].join("; ")}`);
    });
  }
  const again = theirErrors.map((error) => `; the peer had to retry: ${error}`).join("");
  return { wrong, what: `${LATER.length} rounds of ${INSTALLS} installations of this library, which was first in ${weWon}${again}` };
}

let failures = 0;

async function row(name, how, check) {
  const { wrong, what } = await check().catch((error) => ({ wrong: [error.stderr || error.stack], what: "" }));
  console.log(`${wrong.length === 0 ? "ok  " : "FAIL"} ${name.padEnd(12)} ${how.padEnd(12)} ${what}`);
  for (const line of wrong.slice(0, 40)) console.log(`       ${line}`);
  failures += wrong.length === 0 ? 0 : 1;
}

for (const peer of process.argv.slice(2).flatMap((kind) => ALL[kind]())) {
  await row(peer.name, "ours first", () => sideBySide(peer, us, peer));
  await row(peer.name, "theirs first", () => sideBySide(peer, peer, us));
  await row(peer.name, "race", () => race(peer));
}
console.log(failures === 0 ? "workers: all checks passed" : `workers: ${failures} checks failed`);
process.exit(failures === 0 ? 0 : 1);
