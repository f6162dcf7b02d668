import 'reflect-metadata';
import pgvector from 'pgvector';
import { DataSource, EntitySchema } from 'typeorm';

export default async function ({ connection, rows, query, extension, hnsw }) {
  const Item = new EntitySchema({
    name: 'Item', tableName: 'items',
    columns: { id: { primary: true, type: 'int' }, embedding: { type: 'vector', length: 3, nullable: true } },
  });
  const { user: username, ...others } = connection;
  const source = new DataSource({ type: 'postgres', ...others, username, entities: [Item], installExtensions: false });
  await source.initialize();
  await source.query(`CREATE EXTENSION IF NOT EXISTS ${extension}`);
  await source.synchronize();
  await source.query(`CREATE INDEX ON items USING ${hnsw} (embedding vector_l2_ops)`);
  const items = source.getRepository('Item');
  await items.save(rows.map(([id, embedding]) => ({ id, embedding })));
  const near = await items.createQueryBuilder('item').orderBy('embedding <-> :query').setParameters({ query: pgvector.toSql(query) })
    .limit(5).getMany();
  // A second synchronisation leaves the column as it is.
  const pending = (await source.driver.createSchemaBuilder().log()).upQueries.map((one) => one.query).filter((one) => !/DROP INDEX/.test(one));
  await source.destroy();
  return { near, pending };
}
