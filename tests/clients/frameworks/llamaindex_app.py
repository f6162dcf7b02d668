"""LlamaIndex's PGVectorStore: hnsw_kwargs, metadata filters, hybrid search, half precision."""

from hashed import DIMENSIONS, embed, report, task, texts
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.vector_stores.postgres import PGVectorStore

place = task()
address = f"postgres@/{place['database']}?host={place['host']}&port=5432"
seen = {}
for name, half, operators in [("full", False, "vector_cosine_ops"), ("half", True, "halfvec_cosine_ops")]:
    store = PGVectorStore.from_params(
        connection_string=f"postgresql+psycopg2://{address}", async_connection_string=f"postgresql+asyncpg://{address}",
        table_name=f"nodes_{name}", embed_dim=DIMENSIONS, hybrid_search=True, text_search_config="english", use_halfvec=half, use_jsonb=True,
        indexed_metadata_keys={("kind", "text")},
        hnsw_kwargs={"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 200, "hnsw_dist_method": operators})
    store.add([TextNode(id_=str(i), text=one, metadata={"number": i, "kind": "abc"[i % 3]}, embedding=embed(one),
                        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"document{i % 7}")})
               for i, one in enumerate(texts())])

    def search(text, k=5, **options):
        found = store.query(VectorStoreQuery(query_embedding=embed(text), query_str=text, similarity_top_k=k, **options))
        return list(zip(found.ids, found.similarities))

    filters = MetadataFilters(filters=[MetadataFilter(key="kind", value=["a", "b"], operator=FilterOperator.IN),
                                       MetadataFilter(key="number", value=20, operator=FilterOperator.GT)], condition=FilterCondition.AND)
    seen[name] = {
        "near": search("red cat tree"),
        "filtered": search("red cat tree", filters=filters),
        "hybrid": sorted(i for i, _ in search("red cat tree", mode=VectorStoreQueryMode.HYBRID, sparse_top_k=4)),
    }
    store.delete("document3")
    seen[name]["deleted"] = search("red cat tree")
report(seen)
