// Drizzle: drizzle-kit push makes the table and its index, a second push has nothing to do, introspection reads them back.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { cosineDistance, l2Distance, lt, sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import pg from 'pg';

const here = process.env.CLIENT_MODULES;

export default async function ({ connection, rows, query, extension, hnsw }) {
  const folder = mkdtempSync(path.join(here, 'drizzle-'));  // where drizzle-kit finds its modules
  const client = new pg.Client(connection);
  await client.connect();
  try {
    await client.query(`CREATE EXTENSION IF NOT EXISTS ${extension}`);
    writeFileSync(path.join(folder, 'schema.ts'), `
      import { index, pgTable, serial, vector } from 'drizzle-orm/pg-core';
      export const items = pgTable('items', { id: serial('id').primaryKey(), embedding: vector('embedding', { dimensions: 3 }) },
        (table) => [index('by_l2').using('${hnsw}', table.embedding.op('vector_l2_ops'))
            .with({ ${hnsw === 'hnsw' ? 'm: 12, ef_construction: 60' : 'bits: 4'} })]);`);
    writeFileSync(path.join(folder, 'drizzle.config.json'), JSON.stringify({
      dialect: 'postgresql', schema: path.join(folder, 'schema.ts'), out: path.join(folder, 'out'),
      dbCredentials: { host: connection.host, port: 5432, user: 'postgres', password: 'unused', database: connection.database, ssl: false },
    }));
    const kit = (...words) => execFileSync(process.execPath,
      [path.join(here, 'node_modules/drizzle-kit/bin.cjs'), ...words, '--config', path.join(folder, 'drizzle.config.json')],
      { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
    kit('push', '--force');
    const oid = `SELECT 'by_l2'::regclass::oid`;
    const before = (await client.query(oid)).rows;
    const db = drizzle(client);
    const { index, pgTable, serial, vector } = await import('drizzle-orm/pg-core');
    const items = pgTable('items', { id: serial('id').primaryKey(), embedding: vector('embedding', { dimensions: 3 }) });
    await db.insert(items).values(rows.map(([id, embedding]) => ({ id, embedding })));
    const again = kit('push', '--force');
    const kept = JSON.stringify(before) === JSON.stringify((await client.query(oid)).rows);
    kit('introspect');
    const schema = readFileSync(path.join(folder, 'out/schema.ts'), 'utf8').split('\n').filter((line) => /index\(|vector\(/.test(line));
    const near = await db.select().from(items).orderBy(l2Distance(items.embedding, query)).limit(5);
    const within = await db.select({ id: items.id }).from(items).where(lt(cosineDistance(items.embedding, query), 0.05)).orderBy(items.id);
    return { near, within, kept, unchanged: /No changes detected/.test(again), schema };
  } finally {
    await client.end();
    rmSync(folder, { recursive: true });
  }
}
