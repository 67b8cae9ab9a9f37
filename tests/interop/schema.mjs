// Tests the schema: compares this library's installation with that of each Node version, object by object
// and function by function, and runs each Node version on this library's installation.

import { readFileSync } from "node:fs";
import pg from "pg";
import { inDatabase, ledger, nodeMigrate, objects, ours as ourProgram, query, quietly } from "./database.mjs";
import { behaviour } from "./functions.mjs";

const install = readFileSync(new URL("../../migrations/install.sql", import.meta.url), "utf8");
const LEDGERS = { gw16: 18, gw17: 19, gw18: 20 };
const BREAKING = [1, 3, 11, 13, 14, 16, 19];

let failures = 0;

function check(what, differences) {
  console.log(`${differences.length === 0 ? "ok  " : "FAIL"} ${what}`);
  for (const line of differences.slice(0, 40)) console.log(`       ${line}`);
  failures += differences.length === 0 ? 0 : 1;
}

const fill = (schema) => install.replaceAll(":GRAPHILE_WORKER_SCHEMA", pg.escapeIdentifier(schema));

const installOurs = (url) => ourProgram(url, "migrate");

const installNamed = (url, schema) =>
  query(url, `begin; create schema ${pg.escapeIdentifier(schema)}; ${fill(schema)}; commit`);

// Everything of the shared schema except the function bodies, which each implementation writes itself. Without the setting
// by which this library keeps its functions on indexes (migrations/native/008_index_scans.sql).
const shape = (url) =>
  [...objects(url)]
    .filter(([name]) => !name.includes(" _native_"))
    .flatMap(([name, text]) => [name, ...text.replace(/ AS (\$\w*\$).*?\1;/gs, " AS body;").replace(/^ +SET enable_seqscan TO 'off'\n/gm, "").split("\n")]);

const expectedLedger = (max) => Array.from({ length: max }, (_, i) => ({ id: i + 1, breaking: BREAKING.includes(i + 1) }));

function diff(theirs, ours) {
  const [left, right] = [theirs, ours].map((lines) => lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))));
  const lines = [];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    if (left[i] !== right[i]) lines.push(`theirs: ${left[i]}`, `ours:   ${right[i]}`);
  }
  return lines;
}

// Starts a worker of a Node version, lets it run one job for every way to enqueue, and stops it.
async function runsJobs(url, gw) {
  const { run, logger } = await quietly(gw);
  const done = [];
  const runner = await run({
    connectionString: url,
    logger,
    noHandleSignals: true,
    concurrency: 2,
    pollInterval: 100,
    taskList: { hello: async (payload) => void done.push(payload.from) },
  });
  try {
    await runner.addJob("hello", { from: "runner" }, { queueName: "q", jobKey: "k" });
    await query(url, `select graphile_worker.add_job('hello', '{"from": "sql"}', queue_name => 'q')`);
    for (let i = 0; i < 100 && (await query(url, "select from graphile_worker._private_jobs")).length > 0; i++) {
      await new Promise((next) => setTimeout(next, 50));
    }
  } finally {
    await runner.stop();
  }
  const left = await query(url, "select task_identifier, last_error from graphile_worker.jobs");
  return [...diff(["runner", "sql"], done.sort()), ...left.map((job) => `left: ${JSON.stringify(job)}`)];
}

const differing = (theirs, ours) =>
  [...theirs].flatMap(([name, text]) => (text === ours.get(name) ? [] : [name, ...diff(text.split("\n"), ours.get(name).split("\n"))]));

const ours = await inDatabase("interop_ours", async (url) => {
  await installOurs(url);
  return {
    shape: shape(url),
    ledger: await ledger(url),
    behaviour: await behaviour(pg, url, { sequences: true }),
    // Node's functions before its migration 20 take ids in every call, so this comparison leaves ids out.
    withoutIds: await behaviour(pg, url, { sequences: false }),
  };
});
check("this library: its ledger ends at 18", diff(expectedLedger(18), ours.ledger));

for (const [gw, max] of Object.entries(LEDGERS)) {
  await inDatabase(`interop_${gw}`, async (url) => {
    await nodeMigrate(url, gw);
    check(`${gw}: its ledger is as expected`, diff(expectedLedger(max), await ledger(url)));
    check(`${gw}: same objects as this library's (${ours.shape.length} lines)`, diff(shape(url), ours.shape));
    const sequences = max >= 20;
    const theirs = await behaviour(pg, url, { sequences });
    const all = sequences ? ours.behaviour : ours.withoutIds;
    check(`${gw}: functions behave like this library's (${theirs.size} cases${sequences ? ", ids included" : ""})`, differing(theirs, all));
  });
  await inDatabase(`interop_on_ours_${gw}`, async (url) => {
    await installOurs(url);
    check(`${gw}: starts on this library's schema and runs jobs`, await runsJobs(url, gw));
    check(`${gw}: migrated this library's schema to ${max}`, diff(expectedLedger(max), await ledger(url)));
    check(`${gw}: did not change this library's objects`, diff(ours.shape, shape(url)));
  });
}

for (const schema of [`a"b'c; drop 🦀 /* -- %s :x \\`, "SELECT", "x".repeat(63)]) {
  await inDatabase("interop_name", async (url) => {
    await installNamed(url, schema);
    const name = pg.escapeIdentifier(schema);
    for (const mode of ["replace", "unsafe_dedupe"]) {
      await query(url, `select ${name}.add_job('t', queue_name => 'q', job_key => $1, job_key_mode => $1)`, [mode]).catch(() => {});
      await query(url, `select ${name}.add_job('t', queue_name => 'q', job_key => 'k' || $1::text, job_key_mode => $1)`, [mode]);
    }
    await query(url, `select ${name}.remove_job('kreplace'), ${name}.force_unlock_workers('{w}'), ${name}.reschedule_jobs('{2}', priority => 0)`);
    await query(url, `select ${name}.permanently_fail_jobs('{2}'), ${name}.complete_jobs('{2}')`);
    check(`a schema named ${schema}`, []);
  });
}

console.log(failures === 0 ? "schema: all checks passed" : `schema: ${failures} checks failed`);
process.exit(failures === 0 ? 0 : 1);
