import knexPackage from 'knex';
import pgvector from 'pgvector/knex';

export default async function ({ connection, rows, query, extension, hnsw }) {
  const knex = knexPackage({ client: 'pg', connection });
  await knex.schema.enableExtension(extension);
  await knex.schema.createTable('items', (table) => {
    table.increments('id');
    table.vector('embedding', 3);
    table.index(knex.raw('embedding vector_l2_ops'), 'by_embedding', hnsw);
  });
  await knex('items').insert(rows.map(([id, embedding]) => ({ id, embedding: pgvector.toSql(embedding) })));
  const near = await knex('items').select('id').orderBy(knex.l2Distance('embedding', query)).limit(5);
  const cosine = await knex('items').select('id').orderBy(knex.cosineDistance('embedding', query)).limit(5);
  await knex.destroy();
  return [near, cosine];
}
