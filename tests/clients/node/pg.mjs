import pg from 'pg';
import pgvector from 'pgvector/pg';

export default async function ({ connection, rows, query, extension, hnsw, ivfflat }) {
  const client = new pg.Client(connection);
  await client.connect();
  await client.query(`CREATE EXTENSION IF NOT EXISTS ${extension}`);
  await pgvector.registerTypes(client);
  await client.query('CREATE TABLE items (id bigserial PRIMARY KEY, embedding vector(3), half halfvec(3), sparse sparsevec(3))');
  for (const [id, embedding] of rows) {
    await client.query('INSERT INTO items (id, embedding, half) VALUES ($1, $2, $3)', [id, pgvector.toSql(embedding), pgvector.toSql(embedding)]);
  }
  await client.query(`CREATE INDEX ON items USING ${hnsw} (embedding vector_l2_ops)`);
  await client.query(`CREATE INDEX ON items USING ${ivfflat} (half halfvec_cosine_ops) WITH (lists = 3)`);
  const near = await client.query('SELECT id, embedding FROM items ORDER BY embedding <-> $1 LIMIT 5', [pgvector.toSql(query)]);
  const half = await client.query('SELECT id, half FROM items ORDER BY half <=> $1 LIMIT 5', [pgvector.toSql(query)]);
  await client.end();
  return [near.rows, half.rows];
}
