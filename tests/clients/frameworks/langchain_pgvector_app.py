"""LangChain's PGVector, with an hnsw index on its table."""

from hashed import DIMENSIONS, embed, report, task, texts
from langchain_core.embeddings import Embeddings
from langchain_postgres import PGVector
from sqlalchemy import create_engine, text

place = task()


class Hashed(Embeddings):
    def embed_documents(self, texts):
        return [embed(one) for one in texts]

    def embed_query(self, text):
        return embed(text)


url = f"postgresql+psycopg://postgres@/{place['database']}?host={place['host']}"
store = PGVector(embeddings=Hashed(), collection_name="documents", connection=url, use_jsonb=True, embedding_length=DIMENSIONS)
store.add_texts(texts(), metadatas=[{"number": i, "even": i % 2 == 0, "kind": "abc"[i % 3]} for i in range(120)],
                ids=[str(i) for i in range(120)])
with create_engine(url).begin() as connection:
    connection.execute(text("CREATE INDEX ON langchain_pg_embedding USING hnsw (embedding vector_cosine_ops)"))


def search(query, **options):
    return [(document.id, score) for document, score in store.similarity_search_with_score(query, **options)]


seen = {
    "near": search("red cat tree", k=5),
    "filtered": search("red cat tree", k=5, filter={"kind": {"$in": ["a", "b"]}, "number": {"$gt": 20}}),
    "or": search("blue river", k=4, filter={"$or": [{"kind": {"$eq": "c"}}, {"even": {"$eq": True}}]}),
    "mmr": [document.id for document in store.max_marginal_relevance_search("snow night", k=4, fetch_k=20)],
}
store.delete(ids=[seen["near"][0][0]])
seen["deleted"] = search("red cat tree", k=3)
report(seen)
