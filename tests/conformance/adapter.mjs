// An adapter for Node's graphile-worker. It has only the commands of the protocol (README.md) that
// examples/languages.rs needs: the table of behaviours does not apply to other implementations. Needs DATABASE_URL, and
// tests/interop's packages.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(new URL("../interop/package.json", import.meta.url));
const { Logger, makeWorkerUtils, run } = require("gw18");
const connectionString = process.env.DATABASE_URL;
// Log records must not be mixed with the replies on stdout.
const logger = new Logger(() => (_level, message) => console.error(message));

const ran = [];
const note = (job, payload) => ran.push(`${job.task_identifier}:${job.attempts}:${JSON.stringify(payload)}`);
const taskList = {
  ok: (payload, { job }) => note(job, payload),
  fail_twice: (payload, { job }) => {
    note(job, payload);
    if (job.attempts < 3) throw new Error(`attempt ${job.attempts}`);
  },
};

let utils;
let runner;
let options;
let specs = [];

const read = {
  queue: ["queueName", String],
  key: ["jobKey", String],
  max_attempts: ["maxAttempts", Number],
  priority: ["priority", Number],
};

function spec(identifier, payload, fields) {
  const found = { identifier, payload: JSON.parse(payload), flags: [] };
  for (const field of fields) {
    const [name, value] = field.split(/=(.*)/s);
    if (name === "flag") found.flags.push(value);
    else found[read[name][0]] = read[name][1](value);
  }
  return found;
}

const commands = {
  async client() {
    utils = await makeWorkerUtils({ connectionString, logger });
    await utils.migrate();
  },
  and: (task, payload, ...fields) => void specs.push(spec(task, payload, fields)),
  async add_many() {
    const jobs = await utils.addJobs(specs);
    specs = [];
    return jobs.map((job) => job.id);
  },
  worker(...fields) {
    const given = Object.fromEntries(fields.map((field) => field.split(/=(.*)/s)));
    options = {
      connectionString,
      logger,
      taskList,
      concurrency: Number(given.concurrency ?? 4),
      forbiddenFlags: given.forbidden_flags?.split(","),
      pollInterval: 500,
      noHandleSignals: true,
    };
  },
  async start() {
    runner = await run(options);
  },
  ran: () => ran.splice(0),
  async stop() {
    await runner.stop();
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...fields] = line.split("\t");
  if (name === "quit") break;
  let reply;
  try {
    if (!commands[name]) throw new Error("unknown command");
    reply = ["ok", ...((await commands[name](...fields)) ?? [])];
  } catch (error) {
    reply = ["error", "GW_ERR_UNSUPPORTED", error.code ?? "-", String(error.message).replace(/[\t\n]/g, " ")];
  }
  process.stdout.write(reply.join("\t") + "\n");
}
await utils?.release();
process.exit(0);
