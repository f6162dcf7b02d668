"""LangChain's PGVectorStore: HNSW and IVFFlat index classes, filters on metadata columns, hybrid search."""

from hashed import DIMENSIONS, embed, report, task, texts
from langchain_core.embeddings import Embeddings
from langchain_postgres import Column, PGEngine, PGVectorStore
from langchain_postgres.v2.hybrid_search_config import HybridSearchConfig, reciprocal_rank_fusion
from langchain_postgres.v2.indexes import DistanceStrategy, HNSWIndex, HNSWQueryOptions, IVFFlatIndex, IVFFlatQueryOptions

place = task()


class Hashed(Embeddings):
    def embed_documents(self, texts):
        return [embed(one) for one in texts]

    def embed_query(self, text):
        return embed(text)


engine = PGEngine.from_connection_string(url=f"postgresql+asyncpg://postgres@/{place['database']}?host={place['host']}&port=5432")
seen = {}
for name, index, options, distance in [
    ("hnsw", HNSWIndex(name="by_hnsw", m=12, ef_construction=60), HNSWQueryOptions(ef_search=200), DistanceStrategy.COSINE_DISTANCE),
    ("ivfflat", IVFFlatIndex(name="by_ivfflat", lists=5, distance_strategy=DistanceStrategy.EUCLIDEAN), IVFFlatQueryOptions(probes=5),
     DistanceStrategy.EUCLIDEAN),
]:
    hybrid = HybridSearchConfig(tsv_column="content_tsv", tsv_lang="pg_catalog.english", fusion_function=reciprocal_rank_fusion,
                                primary_top_k=8, secondary_top_k=8, fusion_function_parameters={"rrf_k": 60, "fetch_top_k": 6},
                                index_name=f"text_{name}")

    def store_of(table, **hybrids):
        engine.init_vectorstore_table(table_name=table, vector_size=DIMENSIONS, id_column=Column("langchain_id", "TEXT"),
                                      metadata_columns=[Column("number", "INTEGER"), Column("kind", "TEXT")], **hybrids)
        store = PGVectorStore.create_sync(engine, Hashed(), table, metadata_columns=["number", "kind"], id_column="langchain_id",
                                          distance_strategy=distance, index_query_options=options, k=5, **hybrids)
        store.add_texts(texts(), metadatas=[{"number": i, "kind": "abc"[i % 3]} for i in range(120)], ids=[str(i) for i in range(120)])
        return store

    store = store_of(f"documents_{name}")
    store.apply_vector_index(index)
    assert store.is_valid_index(index.name)
    store.reindex(index.name)

    def search(query, **options):
        return [(document.id, score) for document, score in store.similarity_search_with_score(query, **options)]

    seen[name] = {
        "near": search("red cat tree"),
        "filtered": search("red cat tree", filter={"number": {"$gte": 20}, "kind": {"$in": ["a", "c"]}}),
        "mmr": [document.id for document in store.max_marginal_relevance_search("snow night", k=4, fetch_k=20)],
    }
    mixed = store_of(f"mixed_{name}", hybrid_search_config=hybrid)
    mixed.apply_hybrid_search_index()
    seen[name]["hybrid"] = sorted(document.id for document in mixed.similarity_search("red cat tree"))
    store.drop_vector_index(index.name)
    seen[name]["dropped"] = not store.is_valid_index(index.name)
report(seen)
