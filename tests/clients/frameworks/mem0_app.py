"""mem0's pgvector store with its hnsw index."""

import os
import uuid

os.environ["MEM0_TELEMETRY"] = "False"

from hashed import DIMENSIONS, embed, report, task, texts  # noqa: E402
from mem0.vector_stores.pgvector import PGVector  # noqa: E402

place = task()
store = PGVector(dbname=place["database"], collection_name="memories", embedding_model_dims=DIMENSIONS, user="postgres", password="", host="",
                 port=5432, diskann=False, hnsw=True, connection_string=f"host={place['host']} dbname={place['database']} user=postgres")
names = {str(uuid.UUID(int=i)): i for i in range(120)}
store.insert([embed(one) for one in texts()], [{"data": one, "user_id": "abc"[i % 3], "number": i} for i, one in enumerate(texts())], list(names))


def search(text, **options):
    return [(names[str(one.id)], one.score) for one in store.search(query=text, vectors=embed(text), top_k=5, **options)]


seen = {"near": search("red cat tree"), "filtered": search("red cat tree", filters={"user_id": "b"})}
store.update(list(names)[seen["near"][0][0]], vector=embed("snow"), payload={"data": "snow", "user_id": "b"})
store.delete(list(names)[seen["near"][1][0]])
seen |= {"changed": search("red cat tree"), "collections": store.list_cols()}
store.delete_col()
report(seen)
