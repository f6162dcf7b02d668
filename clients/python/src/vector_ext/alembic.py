"""For migrations by Alembic.

In `env.py`:

    from vector_ext.alembic import render_item
    context.configure(…, render_item=render_item)

so that migrations which Alembic writes import pgvector's types. In migrations written by hand:

    import vector_ext.alembic
    op.create_ivflsh("items_by_tenant", "items", "embedding", ["tenant"], type="vector", metric="cosine", bits=4, concurrently=True)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from alembic.operations import Operations

from .indexes import operator_class, options


def render_item(kind: str, item: Any, context: Any) -> str | Literal[False]:
    """pgvector's types, and the import that they need; for `context.configure`."""
    if kind == "type" and type(item).__module__.startswith("pgvector.sqlalchemy"):
        context.imports.add("import pgvector.sqlalchemy")
        arguments = "" if getattr(item, "dim", getattr(item, "length", None)) is None else str(getattr(item, "dim", getattr(item, "length", None)))
        return f"pgvector.sqlalchemy.{type(item).__name__}({arguments})"
    return False


@Operations.register_operation("create_ivflsh")
class _CreateIvflsh:
    """`op.create_ivflsh(name, table, column, filters)`; with `concurrently` outside of the migration's transaction."""

    @classmethod
    def create_ivflsh(cls, operations: Any, name: str, table: str, column: str, filters: Sequence[str] = (), *, type: str = "vector",
                      metric: str = "l2", lists: int | None = None, bits: int | None = None, seed: int | None = None,
                      concurrently: bool = False, **arguments: Any) -> None:
        arguments |= {"postgresql_using": "ivflsh", "postgresql_ops": {column: operator_class(type, metric)},
                      "postgresql_with": options({"lists": lists, "bits": bits, "seed": seed})}
        if not concurrently:
            operations.create_index(name, table, [column, *filters], **arguments)
            return
        with operations.get_context().autocommit_block():
            operations.create_index(name, table, [column, *filters], postgresql_concurrently=True, **arguments)
