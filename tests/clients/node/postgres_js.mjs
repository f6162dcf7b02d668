import pgvector from 'pgvector';
import postgres from 'postgres';

export default async function ({ connection, rows, query, extension, hnsw }) {
  const sql = postgres({ ...connection, onnotice: () => {} });
  await sql.unsafe(`CREATE EXTENSION IF NOT EXISTS ${extension}`);
  await sql`CREATE TABLE items (id bigint PRIMARY KEY, embedding vector(3))`;
  await sql`INSERT INTO items ${sql(rows.map(([id, embedding]) => ({ id, embedding: pgvector.toSql(embedding) })), 'id', 'embedding')}`;
  await sql.unsafe(`CREATE INDEX my_index ON items USING ${hnsw} (embedding vector_cosine_ops)`);
  const near = await sql`SELECT * FROM items ORDER BY embedding <=> ${pgvector.toSql(query)} LIMIT 5`;
  await sql.end();
  return near;
}
