import pgvector from 'pgvector/sequelize';
import { Sequelize, DataTypes } from 'sequelize';

export default async function ({ connection, rows, query, extension, hnsw }) {
  pgvector.registerTypes(Sequelize);
  const connect = () => new Sequelize(connection.database, connection.user, 'unused',
    { dialect: 'postgres', host: connection.host, logging: false });
  // Sequelize asks for the types' OIDs once: the extension is there before.
  const first = connect();
  await first.query(`CREATE EXTENSION IF NOT EXISTS ${extension}`);
  await first.close();
  const sequelize = connect();
  const Item = sequelize.define('Item', { embedding: DataTypes.VECTOR(3) }, {
    tableName: 'items', timestamps: false,
    indexes: [{ fields: ['embedding'], using: hnsw, operator: 'vector_l2_ops', name: 'by_embedding' }],
  });
  await Item.sync({ force: true });
  await Item.bulkCreate(rows.map(([id, embedding]) => ({ id, embedding })));
  const near = await Item.findAll({ order: pgvector.l2Distance('embedding', query, sequelize), limit: 5 });
  await Item.sync({ alter: true });
  const seen = near.map((item) => [item.id, item.embedding]);
  await sequelize.close();
  return seen;
}
