// A Drizzle schema whose index has a filter column behind the vector, pushed by drizzle-kit, twice.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import pg from 'pg';
import pgvector from 'pgvector/pg';

const here = process.env.CLIENT_MODULES;

export default async function ({ connection, rows, query }) {
  const folder = mkdtempSync(path.join(here, 'drizzle-'));
  const client = new pg.Client(connection);
  await client.connect();
  try {
    await client.query('CREATE EXTENSION IF NOT EXISTS vector');
    writeFileSync(path.join(folder, 'schema.ts'), `
      import { index, integer, pgTable, serial, vector } from 'drizzle-orm/pg-core';
      export const items = pgTable('items', { id: serial('id').primaryKey(), tenant: integer('tenant'),
          embedding: vector('embedding', { dimensions: 3 }) },
        (table) => [index('by_tenant').using('hnsw', table.embedding.op('vector_l2_ops'), table.tenant.op('int4_ops'))]);`);
    writeFileSync(path.join(folder, 'drizzle.config.json'), JSON.stringify({
      dialect: 'postgresql', schema: path.join(folder, 'schema.ts'), out: path.join(folder, 'out'),
      dbCredentials: { host: connection.host, port: 5432, user: 'postgres', password: 'unused', database: connection.database, ssl: false },
    }));
    const push = () => execFileSync(process.execPath,
      [path.join(here, 'node_modules/drizzle-kit/bin.cjs'), 'push', '--force', '--config', path.join(folder, 'drizzle.config.json')],
      { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
    push();
    for (const [id, embedding] of rows) {
      await client.query('INSERT INTO items (id, tenant, embedding) VALUES ($1, $2, $3)', [id, id % 4, pgvector.toSql(embedding)]);
    }
    const unchanged = /No changes detected/.test(push());
    const text = 'FROM items WHERE tenant = 3 ORDER BY embedding <-> $1 LIMIT 5';
    const near = (await client.query(`SELECT id ${text}`, [pgvector.toSql(query)])).rows.map((row) => row.id);
    const plan = (await client.query(`EXPLAIN SELECT id ${text}`, [pgvector.toSql(query)])).rows.map((row) => row['QUERY PLAN']).join('\n');
    const definition = (await client.query("SELECT indexdef FROM pg_indexes WHERE indexname = 'by_tenant'")).rows[0].indexdef;
    return { near, plan, definition, unchanged };
  } finally {
    await client.end();
    rmSync(folder, { recursive: true });
  }
}
