import { Kysely, PostgresDialect, sql } from 'kysely';
import pg from 'pg';
import pgvector from 'pgvector/kysely';

export default async function ({ connection, rows, query, extension, hnsw }) {
  const db = new Kysely({ dialect: new PostgresDialect({ pool: new pg.Pool(connection) }) });
  await sql`CREATE EXTENSION IF NOT EXISTS ${sql.ref(extension)}`.execute(db);
  await db.schema.createTable('items')
    .addColumn('id', 'serial', (column) => column.primaryKey())
    .addColumn('embedding', sql`vector(3)`)
    .execute();
  await db.insertInto('items').values(rows.map(([id, embedding]) => ({ id, embedding: pgvector.toSql(embedding) }))).execute();
  await db.schema.createIndex('by_embedding').on('items').using(hnsw).expression(sql`embedding vector_l2_ops`).execute();
  const near = await db.selectFrom('items').select('id').orderBy(pgvector.l2Distance('embedding', query)).limit(5).execute();
  const inner = await db.selectFrom('items').select('id').orderBy(pgvector.maxInnerProduct('embedding', query)).limit(5).execute();
  await db.destroy();
  return [near, inner];
}
