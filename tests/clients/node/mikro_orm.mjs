import { EntitySchema, MikroORM } from '@mikro-orm/postgresql';
import { l2Distance, VectorType } from 'pgvector/mikro-orm';

export default async function ({ connection, rows, query, extension, hnsw }) {
  const Item = new EntitySchema({
    name: 'Item', tableName: 'items',
    properties: { id: { primary: true, type: 'number' }, embedding: { type: VectorType, dimensions: 3, nullable: true } },
    indexes: [{ name: 'by_embedding', expression: `create index by_embedding on items using ${hnsw} (embedding vector_l2_ops)` }],
  });
  const { database: dbName, ...others } = connection;
  const orm = await MikroORM.init({ entities: [Item], dbName, ...others, allowGlobalContext: true, discovery: { warnWhenNoEntities: false } });
  await orm.em.getConnection().execute(`CREATE EXTENSION IF NOT EXISTS ${extension}`);
  await orm.schema.createSchema({ wrap: false });
  const em = orm.em.fork();
  await em.insertMany('Item', rows.map(([id, embedding]) => ({ id, embedding })));
  const near = await em.createQueryBuilder('Item').orderBy({ [l2Distance('embedding', query)]: 'ASC' }).limit(5).getResult();
  const changes = await orm.schema.getUpdateSchemaSQL({ wrap: false });
  const seen = near.map((item) => [item.id, Array.from(item.embedding)]);
  await orm.close(true);
  return { seen, changes };
}
