"""An index class for SQLAlchemy, and for Alembic, which compares and writes it as any other `Index`.

    from pgvector.sqlalchemy import Vector
    from vector_ext.sqlalchemy import Ivflsh

    class Item(Base):
        __tablename__ = "items"
        id = mapped_column(BigInteger, primary_key=True)
        tenant = mapped_column(Integer)
        embedding = mapped_column(Vector(384))
        __table_args__ = (Ivflsh("items_by_tenant", "embedding", "tenant", metric="cosine", bits=4),)
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Index, Table, event
from sqlalchemy.dialects import postgresql

from .indexes import operator_class, options


class Ivflsh(Index):
    """An index on a vector column, and behind it columns that conditions are on.

    `metric`: l2, cosine, ip, …; the operator class is that of the column's type. Other arguments are those of `Index`:
    `postgresql_where`, `postgresql_concurrently`, and so on. For an expression say `postgresql_ops` yourself, as for any `Index`.
    """

    inherit_cache = False

    def __init__(self, name: str, embedding: Any, *filters: Any, metric: str = "l2", lists: int | None = None, bits: int | None = None,
                 seed: int | None = None, **arguments: Any) -> None:
        operator_class("", metric)  # says what is wrong with it now
        self.metric = metric
        chosen = options({"lists": lists, "bits": bits, "seed": seed})
        if chosen:
            arguments["postgresql_with"] = chosen | arguments.get("postgresql_with", {})
        given = "postgresql_ops" in arguments
        super().__init__(name, embedding, *filters, postgresql_using="ivflsh", **arguments)
        if not given:
            if self.table is not None:
                self._choose(self, self.table)
            else:
                event.listen(self, "after_parent_attach", self._choose)

    @staticmethod
    def _choose(index: Any, table: Any) -> None:
        """When the table is known, so is the column's type."""
        if isinstance(table, Table):
            column = index.expressions[0]
            if not isinstance(column, Column):
                raise ValueError(f"index {index.name}: of an expression say the operator class by postgresql_ops")
            kind = column.type.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
            index.dialect_options["postgresql"]["ops"] = {column.key: operator_class(kind, index.metric)}
