// Tests recovery: a living worker keeps its long job, and the jobs of a killed worker are recovered. This
// library runs together with each peer, with time settings that are a hundred times shorter.
//   node recovery.mjs node rust
// Needs the same programs and variables as workers.mjs. "Ours" means this library, "theirs" means the peer.

import { spawn } from "node:child_process";
import { inDatabase, nodeMigrate, ours, query, quietly } from "./database.mjs";

const THRESHOLD = 1500;
const LONG = 4 * THRESHOLD;

const TABLE = "create table interop_ledger (job_id bigint, who text, payload json)";
const NODE = { gw16: "0.16.6", gw17: "0.17.3", gw18: "0.18.0" };
const RUST = () => ({ "0.13.5": process.env.V13, "0.14.1": process.env.V14 });

const sweeper = (program, url, ...tasks) =>
  spawn(program, [url, "recover", ...tasks, "--ledger-table", "interop_ledger", "--sweep-threshold", `${THRESHOLD}`], { stdio: "ignore" });
const ended = (child) => child.exitCode !== null || child.signalCode !== null;
const gone = (child) => new Promise((next) => (ended(child) ? next() : child.once("exit", next)));
const add = (url, task) => query(url, "select graphile_worker.add_job($1, $2::json)", [task, JSON.stringify({ ms: LONG })]);

async function until(url, question, what, timeout = 30_000) {
  for (const start = Date.now(); Date.now() - start < timeout; ) {
    const [{ yes }] = await query(url, question);
    if (yes) return;
    await new Promise((next) => setTimeout(next, 50));
  }
  throw new Error(`timeout while waiting: ${what}`);
}

const started = (url, who) => until(url, `select exists (select from interop_ledger where who = '${who}') as yes`, `${who} starts`);
const done = (url, timeout) => until(url, "select not exists (select from graphile_worker.jobs) as yes", "all jobs end", timeout);

/** Waits for two sweeps of this library: each finds a worker that died long ago. */
async function oursSweeps(url) {
  for (const dead of ["dead-1", "dead-2"]) {
    await query(url, `insert into graphile_worker._native_workers (id, last_heartbeat_at) values ('${dead}', now() - interval '1 hour')`);
    await until(url, `select not exists (select from graphile_worker._native_workers where id = '${dead}') as yes`, `a sweep finds ${dead}`);
  }
}

/** Compares the starts and ends of all jobs, each with the side that ran it. */
async function runs(url, expected) {
  const rows = await query(url, "select who || case when payload->>'ended' is null then ' starts' else ' ends' end as what from interop_ledger order by 1");
  const found = rows.map((row) => row.what).join(", ");
  return found === expected ? [] : [`${found} instead of ${expected}`];
}

// A long job of Node's worker ends where it started, although that worker sends no heartbeat.
async function node(gw) {
  return await inDatabase(`interop_recovery_${gw}`, async (url) => {
    await nodeMigrate(url, gw);
    await ours(url, "migrate");
    await query(url, TABLE);
    const { run, logger } = await quietly(gw);
    const insert = "insert into interop_ledger (job_id, who, payload) values ($1, 'theirs', $2)";
    const theirs = async (payload, { job, query }) => {
      await query(insert, [job.id, payload]);
      await new Promise((next) => setTimeout(next, payload.ms));
      await query(insert, [job.id, { ended: true }]);
    };
    // concurrency is 2: if a sweep took the job away, the second slot would run it again.
    const runner = await run({ connectionString: url, logger, noHandleSignals: true, concurrency: 2, pollInterval: 100, taskList: { theirs } });
    const us = sweeper(process.env.OURS, url, "ours");
    try {
      await until(url, "select exists (select from graphile_worker._native_workers) as yes", "ours sends a heartbeat");
      await add(url, "theirs");
      await started(url, "theirs");
      await new Promise((next) => setTimeout(next, 2 * THRESHOLD));
      await oursSweeps(url);
      await done(url);
      return await runs(url, "theirs ends, theirs starts");
    } finally {
      us.kill("SIGTERM");
      await runner.stop();
      await gone(us);
    }
  });
}

// Both sides run a long job while both sweep.
async function bothHold(name, program) {
  return await inDatabase(`interop_hold_${name}`, async (url) => {
    await ours(url, "migrate");
    await query(url, TABLE);
    const theirs = sweeper(program, url, "theirs", "both");
    await until(url, "select to_regclass('graphile_worker._private_workers') is not null as yes", "the peer's tables");
    await until(url, "select exists (select from graphile_worker._private_workers) as yes", "theirs sends a heartbeat");
    const us = sweeper(process.env.OURS, url, "ours", "both");
    try {
      await until(url, "select count(*) = 2 as yes from graphile_worker._private_workers", "both send heartbeats");
      await add(url, "ours");
      await add(url, "theirs");
      await started(url, "ours");
      await started(url, "theirs");
      await new Promise((next) => setTimeout(next, 2 * THRESHOLD));
      await oursSweeps(url);
      // The peer recovers the jobs of an unknown worker; this library does not. So this shows a sweep of the peer.
      await query(url, "select graphile_worker.add_job('ghost')");
      await query(url, "update graphile_worker._private_jobs set locked_by = 'ghost', locked_at = now() - interval '1 hour' where locked_by is null");
      await until(url, "select not exists (select from graphile_worker.jobs where locked_by = 'ghost') as yes", "a sweep of the peer");
      await query(url, "delete from graphile_worker._private_jobs where locked_by is null");
      await done(url);
      return await runs(url, "ours ends, ours starts, theirs ends, theirs starts");
    } finally {
      us.kill("SIGTERM");
      theirs.kill("SIGTERM");
      await Promise.all([gone(us), gone(theirs)]);
    }
  });
}

// The worker that starts the job is killed. The other side's sweep recovers the job, and the other side ends it.
async function killed(name, program, weDie) {
  return await inDatabase(`interop_kill_${name}_${weDie}`, async (url) => {
    await ours(url, "migrate");
    await query(url, TABLE);
    const start = { ours: () => sweeper(process.env.OURS, url, "ours", "both"), theirs: () => sweeper(program, url, "theirs", "both") };
    const [dying, living] = weDie ? ["ours", "theirs"] : ["theirs", "ours"];
    // The peer's tables must exist before this library's worker starts, because it looks for them only then.
    const first = start.theirs();
    await until(url, "select to_regclass('graphile_worker._private_workers') is not null as yes", "the peer's tables");
    await until(url, "select exists (select from graphile_worker._private_workers) as yes", "theirs sends a heartbeat");
    if (weDie) {
      first.kill("SIGTERM");
      await gone(first);
    }
    const victim = weDie ? start.ours() : first;
    let heir;
    try {
      await until(url, "select exists (select from graphile_worker._private_workers) as yes", `${dying} sends a heartbeat`);
      await add(url, "both");
      await started(url, dying);
      heir = start[living]();
      await until(url, "select count(*) = 2 as yes from graphile_worker._private_workers", "both send heartbeats");
      victim.kill("SIGKILL");
      await gone(victim);
      // The peer does not publish its heartbeat interval: this library assumes 30 seconds, and waits for three
      // heartbeats.
      await done(url, weDie ? 30_000 : 150_000);
      return await runs(url, [`${dying} starts`, `${living} ends`, `${living} starts`].sort().join(", "));
    } finally {
      victim.kill("SIGKILL");
      heir?.kill("SIGTERM");
      await Promise.all([gone(victim), heir && gone(heir)]);
    }
  });
}

let failures = 0;

async function row(name, what, check) {
  const begun = Date.now();
  const wrong = await check().catch((error) => [error.stderr || error.stack]);
  console.log(`${wrong.length === 0 ? "ok  " : "FAIL"} ${name.padEnd(12)} ${what} ${((Date.now() - begun) / 1000).toFixed(1)} s`);
  for (const line of wrong) console.log(`       ${line}`);
  failures += wrong.length === 0 ? 0 : 1;
}

const rows = process.argv.slice(2).flatMap((kind) =>
  kind === "node"
    ? Object.keys(NODE).map((gw) => [[`node ${NODE[gw]}`, "a long job of theirs ends where it started", () => node(gw)]])
    : Object.entries(RUST()).map(([version, program]) => {
        const name = version.replaceAll(".", "_");
        return [
          [`rust ${version}`, "long jobs of both end where they started", () => bothHold(name, program)],
          [`rust ${version}`, "this library is killed, the peer ends its job", () => killed(name, program, true)],
          [`rust ${version}`, "the peer is killed, this library ends its job", () => killed(name, program, false)],
        ];
      }),
);
// One peer after the other: parallel runs would delay each other's heartbeats.
for (const group of rows) for (const [name, what, check] of group) await row(name, what, check);
console.log(failures === 0 ? "recovery: only jobs of dead workers are recovered" : `recovery: ${failures} checks failed`);
process.exit(failures === 0 ? 0 : 1);
