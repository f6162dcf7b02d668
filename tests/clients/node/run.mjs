// Runs one client: reads a task from standard input, prints what the client saw, as JSON.
//   node run.mjs NAME     task: {host, database, rows: [[id, [x, y, z]], …], query, extension, hnsw, ivfflat}
import { readFileSync } from 'node:fs';

const task = JSON.parse(readFileSync(0, 'utf8'));
task.connection = { host: task.host, port: 5432, user: 'postgres', password: 'unused', database: task.database };
const { default: client } = await import(`./${process.argv[2]}.mjs`);
const seen = await client(task);
process.stdout.write('\n' + JSON.stringify(seen) + '\n', () => process.exit(0));
