// Tests cron: a scheduler of this library and one of a peer run the same crontab for two minutes of real
// time, after an hour that both missed. Each tick must have exactly one job.
//   node cron.mjs node rust
// Needs the same programs and variables as workers.mjs.

import { spawn } from "node:child_process";
import { inDatabase, nodeMigrate, ours, query, quietly } from "./database.mjs";

const CRONTAB = '* * * * * minutely {"a":1}\n*/15 * * * * quarterly ?fill=3h&max=3&queue=q {"a":2}';
const NODE = { gw16: "0.16.6", gw17: "0.17.3", gw18: "0.18.0" };
const RUST = () => ({ "0.13.5": process.env.V13, "0.14.1": process.env.V14 });

const gone = (child) => new Promise((next) => (child.exitCode !== null || child.signalCode !== null ? next() : child.once("exit", next)));

function process_(program, url) {
  const child = spawn(program, [url, "schedule", CRONTAB], { stdio: "ignore" });
  return async () => {
    child.kill("SIGTERM");
    await gone(child);
  };
}

async function nodeScheduler(url, gw) {
  const { run, logger } = await quietly(gw);
  const taskList = { nothing: async () => {} };
  const runner = await run({ connectionString: url, logger, noHandleSignals: true, concurrency: 1, taskList, crontab: CRONTAB });
  return () => runner.stop();
}

async function check(name, migrate, theirs) {
  return await inDatabase(`interop_cron_${name}`, async (url) => {
    await migrate(url);
    await ours(url, "migrate");
    // The entry is known for a day, and its last tick is more than an hour ago.
    await query(url, `insert into graphile_worker._private_known_crontabs values
      ('quarterly', now() - interval '1 day', date_trunc('hour', now()) - interval '1 hour')`);
    await query(url, `create table public.adders (job_id bigint, who text);
      create function who() returns trigger language plpgsql as $$
      begin
        insert into public.adders values (new.id, current_setting('application_name'));
        return new;
      end $$;
      create trigger who after insert on graphile_worker._private_jobs for each row execute function who()`);
    const stops = await Promise.all([process_(process.env.OURS, url), theirs(url)]);
    // Wait for two ticks while both run, then five more seconds, in which a duplicate job would appear.
    for (const start = Date.now(); ; await new Promise((next) => setTimeout(next, 250))) {
      const [{ yes }] = await query(url, "select count(distinct run_at) >= 2 as yes from graphile_worker.jobs where task_identifier = 'minutely'");
      if (yes || Date.now() - start > 200_000) break;
    }
    await new Promise((next) => setTimeout(next, 5000));
    for (const stop of stops) await stop();
    const wrong = [];
    const ticks = await query(url, "select task_identifier, run_at::text, count(*)::int from graphile_worker.jobs group by 1, 2 order by 2, 1");
    for (const tick of ticks) if (tick.count !== 1) wrong.push(`${tick.task_identifier} of ${tick.run_at}: ${tick.count} jobs instead of one job a tick`);
    const missed = await query(url, `
      select t::text from graphile_worker._private_known_crontabs k,
             generate_series(date_trunc('hour', k.known_since) + interval '1 day' - interval '45 minutes', k.last_execution, interval '15 minutes') t
       where k.identifier = 'quarterly'
         and not exists (select from graphile_worker.jobs j where j.task_identifier = 'quarterly' and j.run_at = t)`);
    wrong.push(...missed.map(({ t }) => `quarterly of ${t} is missing`));
    const known = await query(url, `
      select k.identifier, k.last_execution = max(j.run_at) as agrees
        from graphile_worker._private_known_crontabs k left join graphile_worker.jobs j on j.task_identifier = k.identifier
       group by k.identifier order by 1`);
    if (JSON.stringify(known) !== JSON.stringify(["minutely", "quarterly"].map((identifier) => ({ identifier, agrees: true })))) {
      wrong.push(`known_crontabs: ${JSON.stringify(known)}`);
    }
    // The scheduler of this library ran too: it must have decided every tick.
    const [{ behind }] = await query(url, `
      select count(*)::int as behind from graphile_worker._private_known_crontabs k
       where not exists (select from graphile_worker._native_crontabs n where n.identifier = k.identifier and n.decided_until >= k.last_execution)`);
    if (behind > 0) wrong.push(`this library has not decided ${behind} entries up to their last tick`);
    const [{ us }] = await query(url, "select count(*)::int as us from public.adders where who = 'graphile-worker:cron'");
    return { wrong, what: `${ticks.length} ticks, this library added ${us}` };
  });
}

const pairs = process.argv.slice(2).flatMap((kind) =>
  kind === "node"
    ? Object.keys(NODE).map((gw) => [`node ${NODE[gw]}`, () => check(gw, (url) => nodeMigrate(url, gw), (url) => nodeScheduler(url, gw))])
    : Object.entries(RUST()).map(([version, program]) => [
        `rust ${version}`,
        () => check(`rust_${version.replaceAll(".", "_")}`, (url) => ours(url, "migrate"), (url) => process_(program, url)),
      ]),
);
// All pairs run at once, because all wait for the same two minutes.
const results = await Promise.all(
  pairs.map(async ([name, run]) => ({ name, ...(await run().catch((error) => ({ wrong: [error.stderr || error.stack], what: "" }))) })),
);
for (const { name, wrong, what } of results) {
  console.log(`${wrong.length === 0 ? "ok  " : "FAIL"} ${name.padEnd(12)} one job a tick  ${what}`);
  for (const line of wrong.slice(0, 20)) console.log(`       ${line}`);
}
const failures = results.filter(({ wrong }) => wrong.length > 0).length;
console.log(failures === 0 ? "cron: each tick has one job" : `cron: ${failures} checks failed`);
process.exit(failures === 0 ? 0 : 1);
