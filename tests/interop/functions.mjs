// A table of calls of the shared schema's SQL functions, and the outcome of each: the result or the
// SQLSTATE, the tables after it, the values of the sequences, and the notifications. Two schemas behave
// alike if all outcomes are equal.

const GW = "graphile_worker";

// A job with key `k` in some state. Its payload is an array, and every column differs from its default.
const holder = (state) => `
  insert into ${GW}._private_tasks (identifier) values ('old');
  insert into ${GW}._private_job_queues (queue_name) values ('old queue');
  insert into ${GW}._private_jobs
    (job_queue_id, task_id, payload, priority, run_at, max_attempts, key, flags, created_at, updated_at,
     attempts, last_error, locked_at, locked_by)
  values (1, 1, '[1,  {"b": 1.0, "a": 2}]', 7, '2031-01-01', 9, 'k', '{"slow": true}', now() - interval '9 hours',
     now() - interval '8 hours', ${state});`;

const STATES = {
  "no job": "",
  "a waiting job": holder("0, null, null, null"),
  "a job that failed once": holder("1, 'boom', null, null"),
  "a job that failed permanently": holder("9, 'boom', null, null"),
  "a job beyond its attempts": holder("12, 'boom', null, null"),
  "a running job": holder("1, null, now(), 'w'"),
  "a running job, last attempt": holder("9, null, now(), 'w'"),
  "a job locked for five hours": holder("1, 'boom', now() - interval '5 hours', 'w'"),
};

const MODES = ["default", "'replace'", "'preserve_run_at'", "'unsafe_dedupe'", "null", "'garbage'", "''"];

const cases = [];
const add = (name, setup, ...calls) => cases.push({ name, setup, calls });
// The ids of several rows are in no particular order.
const addUnordered = (name, setup, ...calls) => cases.push({ name, setup, calls, ids: false });

for (const [state, setup] of Object.entries(STATES)) {
  for (const mode of MODES) {
    const how = mode === "default" ? "" : `, job_key_mode => ${mode}`;
    add(`add_job, ${state}, mode ${mode}`, setup, `add_job('new', job_key => 'k'${how})`);
    add(
      `add_job with everything, ${state}, mode ${mode}`,
      setup,
      `add_job('new', '[true, {"b": 1, "a": 0.10, "b": 2}]', 'new queue', '2032-02-02', 3, 'k', -5, '{x,y,x}'${how})`,
    );
    add(`add_job without key, ${state}, mode ${mode}`, setup, `add_job('old', '{"a": 1}', 'old queue'${how})`);
  }
  add(`add_job, ${state}, object replaces array`, setup, `add_job('new', '{"a":  1}', job_key => 'k')`);
  add(`add_job, ${state}, scalar replaces array`, setup, `add_job('new', 'null', job_key => 'k')`);
  add(`add_job twice, ${state}`, setup, `add_job('new', '[1]', job_key => 'k')`, `add_job('new', '[2]', job_key => 'k')`);
  for (const keep of ["", ", true", ", false", ", null"]) {
    add(
      `add_jobs${keep}, ${state}`,
      setup,
      `add_jobs(array[('new', '[3]', 'q', '2033-03-03', 4, 'k', 6, '{f}')::${GW}.job_spec]${keep})`,
    );
  }
  addUnordered(
    `add_jobs, several, ${state}`,
    setup,
    `add_jobs(array[
       ('new', '[3]', 'q2', null, null, 'k', null, null),
       ('old', null, 'q1', null, null, 'other', null, null),
       ('new', null, 'q1', null, null, null, null, null),
       ('b', null, null, null, null, null, null, null)]::${GW}.job_spec[])`,
  );
  add(`add_jobs, one key twice, ${state}`, setup, `add_jobs(array_fill(('t',null,null,null,null,'k',null,null)::${GW}.job_spec, array[2]))`);
  add(`remove_job, ${state}`, setup, `remove_job('k')`);
  add(`remove_job, unknown key, ${state}`, setup, `remove_job('x')`);
  add(`remove_job and add_job, ${state}`, setup, `remove_job('k')`, `add_job('new', job_key => 'k')`);
  add(`complete_jobs, ${state}`, setup, `complete_jobs('{1, 99}')`);
  add(`permanently_fail_jobs, ${state}`, setup, `permanently_fail_jobs('{1, 99}')`);
  add(`permanently_fail_jobs with a reason, ${state}`, setup, `permanently_fail_jobs('{1}', 'enough')`, `permanently_fail_jobs('{1}', '')`);
  add(`reschedule_jobs, nothing, ${state}`, setup, `reschedule_jobs('{1, 99}')`);
  add(`reschedule_jobs, zeros, ${state}`, setup, `reschedule_jobs('{1}', priority => 0, attempts => 0)`);
  add(`reschedule_jobs, everything, ${state}`, setup, `reschedule_jobs('{1}', '2034-04-04', -9, 2, 5)`);
  add(`reschedule_jobs, odd attempts, ${state}`, setup, `reschedule_jobs('{1}', attempts => -3)`, `reschedule_jobs('{1}', attempts => 99)`);
  for (const workers of ["{w}", "{x,w}", "{x}", "{}"]) {
    const locked = setup && `${setup} update ${GW}._private_job_queues set locked_at = now(), locked_by = 'w';`;
    add(`force_unlock_workers ${workers}, ${state}`, locked, `force_unlock_workers('${workers}')`);
  }
  // The limits of arguments do not depend on the state, but an error must not change any state.
  add(`reschedule_jobs, too much, ${state}`, setup, `reschedule_jobs('{1}', priority => 32768)`, `reschedule_jobs('{1}', attempts => 40000)`,
    `reschedule_jobs('{1}', max_attempts => 0)`, `reschedule_jobs('{1}', max_attempts => 32768)`);
}

for (const call of [
  "add_job(null)", "add_job('')", "add_job(repeat('ä', 128))", "add_job(repeat('a', 129))",
  "add_job('t', queue_name => '')", "add_job('t', queue_name => repeat('ä', 128))", "add_job('t', queue_name => repeat('a', 129))",
  "add_job('t', job_key => '')", "add_job('t', job_key => repeat('ä', 512))", "add_job('t', job_key => repeat('a', 513))",
  "add_job('t', job_key => '', job_key_mode => 'unsafe_dedupe')", "add_job(null, job_key => 'k', job_key_mode => 'unsafe_dedupe')",
  "add_job('t', job_key => 'k', job_key_mode => 'unsafe_dedupe', max_attempts => 40000)",
  "add_job('t', job_key => 'k', job_key_mode => 'unsafe_dedupe', priority => -40000)",
  "add_job('t', job_key => 'k', job_key_mode => 'unsafe_dedupe', flags => '{a,null}')",
  "add_job('t', max_attempts => 0)", "add_job('t', max_attempts => -1)", "add_job('t', max_attempts => 32767)", "add_job('t', max_attempts => 32768)",
  "add_job('t', priority => -32768)", "add_job('t', priority => -32769)", "add_job('t', priority => 32767)", "add_job('t', priority => 32768)",
  "add_job('t', flags => '{}')", "add_job('t', flags => '{a,b}')", "add_job('t', flags => '{a,null}')", "add_job('t', flags => '{{a,b},{c,d}}')",
  "add_job('t', run_at => 'infinity')", "add_job('t', run_at => '-infinity')",
  "add_job('t', '1')", "add_job('t', '\"x\"')", "add_job('t', 'null')", "add_job('t', '{\"a\": \"\\u0000\"}')", "add_job('t', '{')",
  "add_jobs(null)", "add_jobs('{}')", "add_jobs('{null}')", "add_jobs('{null,null}')", `add_jobs(array[null, ('t',null,null,null,null,null,null,null)::${GW}.job_spec])`,
  `add_jobs(array[[('t','1',null,null,null,null,null,null), ('t','1',null,null,null,null,null,null)]]::${GW}.job_spec[])`,
  `add_jobs(array_fill(('t','1','q',null,null,null,null,null)::${GW}.job_spec, array[50]))`,
  `add_jobs(array[('t',null,null,null,0,null,null,null)::${GW}.job_spec])`,
  "remove_job(null)", "remove_job('')", "complete_jobs(null)", "complete_jobs('{}')", "permanently_fail_jobs(null)", "permanently_fail_jobs('{null}')",
  "reschedule_jobs(null)", "reschedule_jobs('{}', priority => 40000)", "force_unlock_workers(null)", "force_unlock_workers('{null}')",
]) {
  add(call, "", call, "add_job('after')");
}

// Before Node's migration 20, every call takes ids of tasks and queues, so the later names have higher ids.
add("names are inserted once", "", ...Array(3).fill("add_job('t', queue_name => 'q')"), "add_job('u', queue_name => 'r')");
add("names are inserted once, unsafe_dedupe", "", ...Array(3).fill("add_job('t', queue_name => 'q', job_key => 'k', job_key_mode => 'unsafe_dedupe')"), "add_job('u', queue_name => 'r')");
add("payloads keep their text", "", `add_job('t', '{"b":  1.50, "a": 1, "b": 2}')`);

// Removes these sequences: Node's functions before its migration 20 take ids of tasks and queues in every call.
const withoutSequences = ({ tasks_id_seq, job_queues_id_seq, ...rest }) => rest;

// Reduces a time to what the comparison needs: no time, about now, some hours from now, or a fixed date.
function moment(text, started) {
  if (text === null || text === undefined || /infinity/.test(text)) return text;
  const time = Date.parse(text);
  if (time - started > 86400e3) return new Date(time).toISOString();
  return `now${Math.round((time - started) / 3600e3) || ""}`;
}

// `row` is a row as JSON. The other columns are added to it, such as the payload as text, whose spelling is compared.
function tidy({ row, ...beside }, ids, started) {
  if (row === null || typeof row !== "object") return row;
  const tidied = { ...row, ...beside };
  // Jobs with one key have their lists joined. Node's function rewrites both through jsonb; this library keeps their
  // text.
  if (Array.isArray(row.payload)) tidied.payload = sorted(row.payload);
  for (const column of ["run_at", "created_at", "updated_at", "locked_at"]) {
    if (column in tidied) tidied[column] = moment(tidied[column], started);
  }
  if (!ids) for (const column of ["id", "task_id", "job_queue_id"]) delete tidied[column];
  return tidied;
}

// Returns the same JSON value with sorted fields.
function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.keys(value).sort().map((name) => [name, sorted(value[name])]));
}

const byText = (a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);

async function outcome({ setup, calls, ids = true }, client, heard) {
  await client.query(`
    truncate ${GW}._private_jobs, ${GW}._private_tasks, ${GW}._private_job_queues restart identity;
    ${setup}`);
  heard.length = 0;
  const started = Date.now();
  const answers = [];
  for (const call of calls) {
    try {
      const { rows } = await client.query(call.startsWith("force_unlock")
        ? `select ${GW}.${call}::text as row`
        : `select row_to_json(job) as row, job.payload::text from ${GW}.${call} as job`);
      answers.push(rows.map((row) => tidy(row, ids, started)).sort(byText));
    } catch (error) {
      answers.push({ sqlstate: error.code, constraint: error.constraint, column: error.column });
    }
  }
  const read = async (sql) => (await client.query(sql)).rows.map((row) => tidy(row, ids, started)).sort(byText);
  const tables = {
    jobs: await read(`
      select row_to_json(j) as row, j.payload::text, t.identifier as task, q.queue_name as queue
        from ${GW}._private_jobs j
        join ${GW}._private_tasks t on t.id = j.task_id
        left join ${GW}._private_job_queues q on q.id = j.job_queue_id`),
    view: await read(`select row_to_json(j) as row from ${GW}.jobs j`),
    tasks: await read(`select row_to_json(t) as row from ${GW}._private_tasks t`),
    queues: await read(`select row_to_json(q) as row from ${GW}._private_job_queues q`),
  };
  const sequences = Object.fromEntries((await client.query(`
    select sequencename as name, last_value as value from pg_sequences where schemaname = '${GW}' order by sequencename collate "C"`
  )).rows.map(({ name, value }) => [name, value]));
  return { answers, tables, sequences, heard: await notifications(client, heard) };
}

// This notification is sent last, so all others have arrived when it arrives.
async function notifications(client, heard) {
  await client.query("select pg_notify('interop', '')");
  while (!heard.some(({ channel }) => channel === "interop")) await new Promise((done) => setTimeout(done, 1));
  return heard
    .filter(({ channel }) => channel !== "interop")
    .map(({ channel, payload }) => {
      if (payload === "") return [channel, ""];
      const { r, ...rest } = JSON.parse(payload);
      if (!(r >= 0 && r < 1)) throw new Error(`notification without a random part: ${payload}`);
      return [channel, rest];
    });
}

// A worker claims the job with the key after add_job has read it and before add_job writes it.
async function race(call, client, rival) {
  await client.query(`truncate ${GW}._private_jobs restart identity; select ${GW}.add_job('t', '{"n": 1}', job_key => 'k')`);
  await rival.query(`begin; update ${GW}._private_jobs set locked_at = now(), locked_by = 'w', attempts = 1`);
  const { rows: [{ pid }] } = await client.query("select pg_backend_pid() as pid");
  const answer = client.query(`select row_to_json(job) as row, job.payload::text from ${GW}.${call} as job`);
  for (;;) {
    const { rows } = await rival.query("select from pg_locks where pid = $1 and not granted", [pid]);
    if (rows.length > 0) break;
  }
  await rival.query("commit");
  const { rows } = await answer;
  const { rows: jobs } = await client.query(`select key, attempts, revision, payload::text, locked_by from ${GW}._private_jobs order by id`);
  return { answers: rows.map((row) => tidy(row, true, Date.now())), jobs };
}

/** Returns the outcome of every case: a map from name to text, equal for schemas that behave alike. */
export async function behaviour(pg, url, { sequences }) {
  const clients = [new pg.Client({ connectionString: url }), new pg.Client({ connectionString: url })];
  for (const client of clients) await client.connect();
  const [client, rival] = clients;
  try {
    const heard = [];
    client.on("notification", (notification) => heard.push(notification));
    await client.query(`set time zone 'UTC'; listen "jobs:insert"; listen interop`);
    const outcomes = new Map();
    for (const one of cases) {
      const result = await outcome(one, client, heard);
      if (!sequences) result.sequences = withoutSequences(result.sequences);
      if (!sequences) result.tables = dropIds(result.tables);
      if (!sequences) result.answers = dropIds(result.answers);
      if (outcomes.has(one.name)) throw new Error(`two cases are named ${one.name}`);
      outcomes.set(one.name, JSON.stringify(result, null, 1));
    }
    for (const call of [
      "add_job('t', job_key => 'k')",
      "add_job('t', job_key => 'k', job_key_mode => 'preserve_run_at')",
      "add_job('t', job_key => 'k', job_key_mode => 'unsafe_dedupe')",
      `add_jobs(array[('t',null,null,null,null,'k',null,null)::${GW}.job_spec])`,
      "remove_job('k')",
    ]) {
      outcomes.set(`race: ${call}`, JSON.stringify(await race(call, client, rival), null, 1));
    }
    return outcomes;
  } finally {
    for (const client of clients) await client.end();
  }
}

// Removes the ids of tasks and queues from a value. Ids of jobs stay.
function dropIds(value) {
  if (Array.isArray(value)) return value.map(dropIds);
  if (value === null || typeof value !== "object") return value;
  const isJob = "max_attempts" in value;
  return Object.fromEntries(Object.entries(value)
    .filter(([name]) => !["task_id", "job_queue_id"].includes(name) && (isJob || name !== "id"))
    .map(([name, inner]) => [name, dropIds(inner)]));
}
