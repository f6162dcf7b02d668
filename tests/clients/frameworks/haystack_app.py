"""Haystack's PgvectorDocumentStore with an hnsw index, its retrievers and filters."""

from hashed import DIMENSIONS, embed, report, task, texts
from haystack.dataclasses import Document
from haystack.utils import Secret
from haystack_integrations.components.retrievers.pgvector import PgvectorEmbeddingRetriever, PgvectorKeywordRetriever
from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore

place = task()
seen = {}
for name, kind, function in [("full", "vector", "cosine_similarity"), ("half", "halfvec", "l2_distance"), ("inner", "vector", "inner_product")]:
    def store(**options):
        return PgvectorDocumentStore(
            connection_string=Secret.from_token(f"host={place['host']} dbname={place['database']} user=postgres"), table_name=f"documents_{name}",
            embedding_dimension=DIMENSIONS, vector_type=kind, vector_function=function, search_strategy="hnsw", hnsw_ef_search=200,
            hnsw_index_creation_kwargs={"m": 12, "ef_construction": 60}, hnsw_index_name=f"by_{name}", keyword_index_name=f"words_{name}", **options)

    first = store(recreate_table=True)
    first.write_documents([Document(id=str(i), content=one, embedding=embed(one), meta={"number": i, "kind": "abc"[i % 3]})
                           for i, one in enumerate(texts())])
    documents = store(hnsw_recreate_index_if_exists=True)  # a second start
    filters = {"operator": "AND", "conditions": [{"field": "meta.number", "operator": ">", "value": 20},
                                                 {"field": "meta.kind", "operator": "in", "value": ["a", "b"]}]}
    ask = lambda **options: [(one.id, one.score) for one in PgvectorEmbeddingRetriever(document_store=documents, top_k=5, **options).run(
        query_embedding=embed("red cat tree"))["documents"]]
    words = PgvectorKeywordRetriever(document_store=documents, top_k=5).run(query="river")["documents"]
    seen[name] = {"near": ask(), "filtered": ask(filters=filters), "words": sorted(one.id for one in words), "count": documents.count_documents()}
report(seen)
