// Prisma: vectors are Unsupported("vector(3)") to it; raw SQL through its driver for pg. What it makes from the schema needs none of
// the engines that it would download.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { PrismaPg } from '@prisma/adapter-pg';
import pgvector from 'pgvector';

const here = process.env.CLIENT_MODULES;

export default async function ({ connection, rows, query, extension, hnsw }) {
  const folder = mkdtempSync(path.join(here, 'prisma-'));
  try {
    writeFileSync(path.join(folder, 'schema.prisma'), `
      generator client {
        provider = "prisma-client-js"
        output = "./generated"
      }
      datasource db {
        provider = "postgresql"
      }
      model items {
        id Int @id
        embedding Unsupported("vector(3)")?
      }`);
    execFileSync(process.execPath, [path.join(here, 'node_modules/prisma/build/index.js'), 'generate', '--schema',
      path.join(folder, 'schema.prisma'), '--no-hints'], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, PRISMA_HIDE_UPDATE_MESSAGE: '1', CHECKPOINT_DISABLE: '1', PRISMA_SCHEMA_ENGINE_BINARY: '/bin/true' } });
    const { PrismaClient } = (await import(path.join(folder, 'generated/index.js'))).default;
    const prisma = new PrismaClient({ adapter: new PrismaPg(connection) });
    await prisma.$executeRawUnsafe(`CREATE EXTENSION IF NOT EXISTS ${extension}`);
    await prisma.$executeRaw`CREATE TABLE items (id int PRIMARY KEY, embedding vector(3))`;
    for (const [id, embedding] of rows) {
      await prisma.$executeRaw`INSERT INTO items (id, embedding) VALUES (${id}, ${pgvector.toSql(embedding)}::vector)`;
    }
    await prisma.$executeRawUnsafe(`CREATE INDEX ON items USING ${hnsw} (embedding vector_l2_ops)`);
    const near = await prisma.$queryRaw`SELECT id, embedding::text FROM items ORDER BY embedding <-> ${pgvector.toSql(query)}::vector LIMIT 5`;
    const found = await prisma.items.findMany({ where: { id: { lte: 3 } }, orderBy: { id: 'asc' } });
    await prisma.$disconnect();
    return [near, found];
  } finally {
    rmSync(folder, { recursive: true });
  }
}
