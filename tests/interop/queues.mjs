// Tests named queues: processes of this library and a worker of Node run the jobs of many queues together. Some jobs fail,
// some processes are killed and some are stopped. No two jobs of a queue may overlap, and each queue keeps its order.
// One job in ten also records its end. The others are quick, so that this library claims several together.
//   node queues.mjs node [JOBS]
// JOBS is the number of jobs in each queue, 30 if not given. Needs the same as database.mjs.

import { spawn } from "node:child_process";
import { inDatabase, ours, query, quietly } from "./database.mjs";

const QUEUES = 100;
const JOBS = Number(process.argv[3] ?? 30);
const PROCESSES = 4;
const INTERRUPTIONS = 10;
const THRESHOLD = 1500;

const SETUP = `
  create table interop_ledger (place bigserial primary key, job_id bigint, who text, payload json);
  create table interrupted (job_id bigint);
  create function note() returns trigger language plpgsql as
    'begin insert into interrupted values (new.id); return null; end';
  create trigger note after update on graphile_worker._private_jobs for each row
    when (new.last_error is distinct from old.last_error) execute function note();
  select count(*) from graphile_worker.add_jobs(array(
    select row('both', json_build_object('q', q, 'n', n, 'ms', case when n % 10 = 0 then 0 end, 'fail', n % 10 = 5), 'q' || q,
               now() - interval '1 hour' + n * interval '1 ms', null, null, null, null)::graphile_worker.job_spec
      from generate_series(1, ${JOBS}) n, generate_series(1, ${QUEUES}) q))`;

const pause = (ms) => new Promise((next) => setTimeout(next, ms));
const left = async (url) => (await query(url, "select count(*)::int as jobs from graphile_worker.jobs"))[0].jobs;

function start(url) {
  const words = [url, "recover", "both", "--ledger-table", "interop_ledger", "--sweep-threshold", `${THRESHOLD}`];
  const child = spawn(process.env.OURS, words, { stdio: "ignore" });
  return { child, gone: new Promise((next) => child.once("exit", next)) };
}

async function startNode(url) {
  const { run, logger } = await quietly("gw18");
  const insert = "insert into interop_ledger (job_id, who, payload) values ($1, 'theirs', $2)";
  const both = async (payload, { job, query }) => {
    await query(insert, [job.id, payload]);
    if (payload.ms !== null) await query(insert, [job.id, { ended: true }]);
    if (payload.fail && job.attempts === 1) throw new Error("the first attempt fails");
  };
  return await run({ connectionString: url, logger, noHandleSignals: true, concurrency: 4, pollInterval: 100, taskList: { both } });
}

/** Replaces processes, every other one by kill -9 and the others by a stop, while jobs are left. */
async function interrupt(url, processes) {
  const step = (QUEUES * JOBS) / (INTERRUPTIONS + 2);
  let done = 0;
  for (; done < INTERRUPTIONS; done++) {
    const goal = QUEUES * JOBS - (done + 1) * step;
    for (let jobs = await left(url); jobs > goal; jobs = await left(url)) await pause(20);
    const victim = done % PROCESSES;
    processes[victim].child.kill(done % 2 === 0 ? "SIGKILL" : "SIGTERM");
    await processes[victim].gone;
    processes[victim] = start(url);
  }
  // A failed job waits for its next attempt. The time of its delay is not tested here.
  while ((await left(url)) > 0) {
    await query(url, "update graphile_worker._private_jobs set run_at = now() where run_at > now() and locked_at is null");
    await pause(200);
  }
}

function check(rows, interrupted) {
  const inside = new Map(); // The job that runs in each queue.
  const next = new Map(); // The number of the last job that was started in each queue.
  const seen = new Set();
  const queueOf = new Map();
  const late = [];
  let overlaps = 0;
  for (const { job_id: job, payload } of rows) {
    if (payload.ended) {
      if (inside.get(queueOf.get(job)) === job) inside.delete(queueOf.get(job));
      continue;
    }
    queueOf.set(job, payload.q);
    const other = inside.get(payload.q);
    // A job of a killed process has no end.
    if (other !== undefined && other !== job && !interrupted.has(other)) overlaps++;
    if (payload.ms === null) inside.delete(payload.q);
    else inside.set(payload.q, job);
    if (seen.has(job)) continue;
    seen.add(job);
    // A job whose process was killed before it recorded the start comes later.
    if (interrupted.has(job) && payload.n < (next.get(payload.q) ?? 0)) continue;
    if (payload.n < (next.get(payload.q) ?? 0)) late.push(`queue ${payload.q}: job ${payload.n} started after ${next.get(payload.q)}`);
    next.set(payload.q, payload.n);
  }
  return { overlaps, late, started: seen.size };
}

const { what, wrong } = await inDatabase("interop_queues", async (url) => {
  const { runMigrations, logger } = await quietly("gw18");
  await runMigrations({ connectionString: url, logger });
  await ours(url, "migrate");
  await query(url, SETUP);
  const begun = Date.now();
  const processes = Array.from({ length: PROCESSES }, () => start(url));
  const node = await startNode(url);
  try {
    await interrupt(url, processes);
  } finally {
    await node.stop();
    for (const { child, gone } of processes) {
      child.kill("SIGTERM");
      await gone;
    }
  }
  const seconds = (Date.now() - begun) / 1000;
  const rows = await query(url, "select job_id, who, payload from interop_ledger order by place");
  const interrupted = new Set((await query(url, "select job_id from interrupted")).map((row) => row.job_id));
  const { overlaps, late, started } = check(rows, interrupted);
  const of = (who) => rows.filter((row) => row.who === who && !row.payload.ended).length;
  const again = rows.filter((row) => !row.payload.ended).length - started;
  const wrong = [];
  if (overlaps > 0) wrong.push(`${overlaps} overlaps`);
  wrong.push(...late);
  if (started !== QUEUES * JOBS) wrong.push(`${started} of ${QUEUES * JOBS} jobs were started`);
  if (of("ours") === 0 || of("theirs") === 0) wrong.push("one side ran nothing");
  return { wrong, what: `ours ${of("ours")}, theirs ${of("theirs")}, ${again} again, ${INTERRUPTIONS} interruptions, ${seconds.toFixed(1)} s` };
});
console.log(`${wrong.length === 0 ? "ok  " : "FAIL"} ${QUEUES} queues of ${JOBS} jobs  ${what}`);
for (const line of wrong) console.log(`       ${line}`);
console.log(wrong.length === 0 ? "queues: no overlap, each in its order" : `queues: ${wrong.length} checks failed`);
process.exit(wrong.length === 0 ? 0 : 1);
