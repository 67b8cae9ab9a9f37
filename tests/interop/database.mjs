// Helpers for PostgreSQL: temporary databases, and the objects of a schema.
// Needs DATABASE_URL, whose role may create databases; pg_dump in the PATH; and OURS, the program of
// examples/interop.rs. Here "ours" means this library, "theirs" means the peer.

import { execFile, execFileSync } from "node:child_process";
import { promisify } from "node:util";
import pg from "pg";

const server = process.env.DATABASE_URL;
const run = promisify(execFile);

/** Runs the program of this library. */
export const ours = (url, ...words) => run(process.env.OURS, [url, ...words]);

export async function query(url, sql, params) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql, params)).rows;
  } finally {
    await client.end();
  }
}

export async function inDatabase(name, use) {
  await query(server, `drop database if exists ${name}`);
  await query(server, `create database ${name}`);
  const url = new URL(server);
  url.pathname = `/${name}`;
  try {
    return await use(url.href);
  } finally {
    await query(server, `drop database ${name} with (force)`);
  }
}

/** Returns all objects of the schema: a map from kind and name to pg_dump's text. */
export function objects(url) {
  const dump = execFileSync("pg_dump", ["--schema-only", "--schema=graphile_worker", url], { encoding: "utf8" });
  const parts = dump.split(/^--\n-- Name: (.*); Type: (.*); Schema: .*\n--\n/m).slice(1);
  const found = new Map();
  for (let i = 0; i < parts.length; i += 3) {
    const lines = parts[i + 2].split("\n").filter((line) => line !== "" && !/^(SET |--|\\)/.test(line));
    found.set(`${parts[i + 1]} ${parts[i]}`, lines.join("\n"));
  }
  return found;
}

/** Compares two sets of objects; returns the names of the added, removed and changed ones. */
export function changes(before, after) {
  const names = [...new Set([...before.keys(), ...after.keys()])];
  const how = (name) => (!before.has(name) ? "added" : !after.has(name) ? "removed" : "changed");
  return names.filter((name) => before.get(name) !== after.get(name)).map((name) => `${how(name)} ${name}`).sort();
}

export const ledger = (url) => query(url, "select id, breaking from graphile_worker.migrations order by id");

/** Imports a version of Node's graphile-worker, with a logger that logs nothing. */
export async function quietly(gw) {
  const { Logger, ...rest } = await import(gw);
  return { ...rest, logger: new Logger(() => () => {}) };
}

export async function nodeMigrate(url, gw) {
  const { runMigrations, logger } = await quietly(gw);
  await runMigrations({ connectionString: url, logger });
}
