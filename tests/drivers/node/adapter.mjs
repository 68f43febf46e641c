// Two Flight SQL clients of npm: `adapter.mjs lakehouse` (arrow-rs behind Node) and `adapter.mjs gizmodata` (JavaScript alone).
// Requests and answers are those of ../tool.py. Runs beside an installed node_modules, so it is given their folder.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(process.argv[3] + "/");
const arrow = require("apache-arrow");
const NEVER = "the client has no such call";

class NotOffered extends Error {}

function version(name) {
  return require(`${process.argv[3]}/node_modules/${name}/package.json`).version;
}

// The text of a cell. `type` decides where JavaScript's value does not tell.
function text(value, type) {
  if (value === null || value === undefined) return null;
  if (arrow.DataType.isTimestamp(type)) return instant(value);
  if (arrow.DataType.isDate(type)) return new Date(Number(value)).toISOString().slice(0, 10);
  if (arrow.DataType.isDecimal(type)) return decimal(value, type.scale);
  if (arrow.DataType.isList(type)) return JSON.stringify([...value].map((item) => text(item, type.children[0].type)));
  if (arrow.DataType.isStruct(type)) {
    return JSON.stringify(Object.fromEntries(type.children.map((field) => [field.name, text(value[field.name], field.type)])));
  }
  if (arrow.DataType.isTime(type)) return time(value, type.unit);
  if (arrow.DataType.isDuration(type)) return `PT${Number(value) / 1000 ** type.unit}S`;
  if (arrow.DataType.isInterval(type)) return interval(value, type.unit);
  if (arrow.DataType.isMap(type)) {
    const [key, item] = type.children[0].type.children;
    return JSON.stringify(Object.fromEntries([...value].map(([name, inner]) => [text(name, key.type), text(inner, item.type)])));
  }
  if (value instanceof Uint8Array) return Buffer.from(value).toString("hex");
  if (Object.is(value, -0)) return "-0.0";
  return String(value);
}

// Apache Arrow for JavaScript hands instants out as milliseconds, a double with a fraction.
function instant(milliseconds) {
  const second = Math.floor(milliseconds / 1000);
  const micros = Math.round((milliseconds - second * 1000) * 1000);
  return new Date(second * 1000).toISOString().replace(".000Z", `.${String(micros).padStart(6, "0")}+00:00`);
}

// In units since midnight, whose digits behind the point are three times the unit's number.
function time(units, unit) {
  const digits = 3 * unit;
  const parts = BigInt(units);
  const scale = 10n ** BigInt(digits);
  const clock = new Date(Number(parts / scale) * 1000).toISOString().slice(11, 19);
  return digits ? `${clock}.${(parts % scale).toString().padStart(digits, "0").slice(0, 6)}` : clock;
}

// Months, days and nanoseconds, whose 64 bits are two words.
function interval(words, unit) {
  if (unit !== arrow.IntervalUnit.MONTH_DAY_NANO) return String(words);
  const nanoseconds = (BigInt(words[3]) << 32n) | BigInt(words[2] >>> 0);
  return `P${words[0]}M${words[1]}DT${Number(nanoseconds) / 1e9}S`;
}

// Apache Arrow for JavaScript hands decimals out as their 32-bit words, least first.
function decimal(words, scale) {
  let whole = 0n;
  for (const word of [...words].reverse()) whole = (whole << 32n) | BigInt(word >>> 0);
  whole = BigInt.asIntN(words.length * 32, whole);
  const digits = (whole < 0n ? -whole : whole).toString().padStart(scale + 1, "0");
  return (whole < 0n ? "-" : "") + (scale ? digits.slice(0, -scale) + "." + digits.slice(-scale) : digits);
}

class Adapter {
  async query({ sql, parameters }) {
    if (parameters) throw new NotOffered("the client binds no parameters");
    const table = await this.table(sql);
    const fields = table.schema.fields;
    const rows = [];
    for (let place = 0; place < table.numRows; place++) {
      rows.push(fields.map((field, column) => text(table.getChildAt(column).get(place), field.type)));
    }
    return { columns: fields.map((field) => field.name), rows };
  }

  async run({ sql }) {
    await this.table(sql);
    return null;
  }

  // On the path of queries a write answers one row, with its count.
  async update({ sql, rows }) {
    if (rows) throw new NotOffered("the client binds no parameters");
    return Number((await this.query({ sql })).rows[0][0]);
  }

  async drain({ sql }) {
    const table = await this.table(sql);
    const sums = {};
    table.schema.fields.forEach((field, column) => {
      if (!arrow.DataType.isInt(field.type) && !arrow.DataType.isFloat(field.type)) return;
      let sum = 0;
      for (const value of table.getChildAt(column)) sum += Number(value ?? 0);
      sums[field.name] = sum;
    });
    return { rows: table.numRows, sums };
  }

  async option() {
    throw new NotOffered(NEVER);
  }

  async upload() {
    throw new NotOffered(NEVER);
  }

  async cancel() {
    throw new NotOffered(NEVER);
  }
}

class Lakehouse extends Adapter {
  async about() {
    return { "@lakehouse-rs/flight-sql-client": version("@lakehouse-rs/flight-sql-client"), "apache-arrow": version("apache-arrow"), node: process.versions.node };
  }

  async connect({ host, port, headers, user, password }) {
    const given = Object.entries(headers).map(([key, value]) => ({ key, value }));
    const who = user ? { username: user, password } : {};
    const { createFlightSqlClient } = require("@lakehouse-rs/flight-sql-client");
    this.client = await createFlightSqlClient({ tls: false, host, port, headers: given, ...who });
    return null;
  }

  async table(sql) {
    return arrow.tableFromIPC(await this.client.query(sql));
  }

  async browse() {
    const read = (bytes) => arrow.tableFromIPC(bytes).toArray();
    const tables = read(await this.client.getTables({ includeSchema: false }));
    return {
      catalogs: read(await this.client.getCatalogs()).map((row) => row.catalog_name),
      schemas: read(await this.client.getDbSchemas({})).map((row) => row.db_schema_name),
      tables: tables.map((row) => [row.db_schema_name, row.table_name]),
      columns: null,
      keys: null,
    };
  }
}

class Gizmodata extends Adapter {
  async about() {
    return { "@gizmodata/gizmosql-client": version("@gizmodata/gizmosql-client"), "apache-arrow": version("apache-arrow"), node: process.versions.node };
  }

  async connect({ host, port, headers, user, password }) {
    if (Object.keys(headers).length) throw new NotOffered("the client sends no headers of the user's");
    const { FlightSQLClient } = require("@gizmodata/gizmosql-client");
    this.client = new FlightSQLClient({ host, port, plaintext: true, ...(user ? { username: user, password } : {}) });
    return null;
  }

  async table(sql) {
    return await this.client.execute(sql);
  }

  async browse() {
    const tables = await this.client.getTables();
    return {
      catalogs: await this.client.getCatalogs(),
      schemas: (await this.client.getSchemas()).map((found) => found.schema),
      tables: tables.map((found) => [found.schema, found.tableName]),
      columns: null,
      keys: null,
    };
  }
}

const adapter = process.argv[2] === "lakehouse" ? new Lakehouse() : new Gizmodata();
for await (const line of createInterface({ input: process.stdin })) {
  const { op, ...fields } = JSON.parse(line);
  let answer;
  try {
    answer = { ok: op === "close" ? null : await adapter[op](fields) };
  } catch (error) {
    answer = error instanceof NotOffered ? { not_offered: error.message } : { error: String(error.message ?? error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
process.exit(0);
