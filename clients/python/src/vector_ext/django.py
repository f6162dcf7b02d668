"""For Django, beside pgvector's fields and distances.

    from pgvector.django import CosineDistance, VectorField
    from vector_ext.django import Ivflsh, VectorExtExtension      # the latter in a migration, before the first table

    class Item(models.Model):
        tenant = models.IntegerField()
        embedding = VectorField(dimensions=384)

        class Meta:
            indexes = [Ivflsh(name="items_by_tenant", fields=["embedding", "tenant"], metric="cosine", bits=4)]
"""

from __future__ import annotations

import copy
from typing import Any

from django.contrib.postgres.indexes import PostgresIndex
from django.contrib.postgres.operations import CreateExtension

from .indexes import operator_class, options


class VectorExtExtension(CreateExtension):  # type: ignore[misc]
    """Migration: CREATE EXTENSION vector_ext."""

    def __init__(self, hints: Any = None) -> None:
        self.name = "vector_ext"
        self.hints = hints or {}


class Ivflsh(PostgresIndex):  # type: ignore[misc]
    """An index on a vector field, the first of `fields`, and behind it fields that conditions are on.

    `metric`: l2, cosine, ip, …; the operator class is that of the field's type. Expressions name theirs by
    `django.contrib.postgres.indexes.OpClass`.
    """

    suffix = "ivflsh"

    def __init__(self, *expressions: Any, metric: str | None = None, lists: int | None = None, bits: int | None = None,
                 seed: int | None = None, **arguments: Any) -> None:
        if metric is not None:
            operator_class("", metric)  # says what is wrong with it now
            if expressions or arguments.get("opclasses"):
                raise ValueError("metric is for fields: expressions and opclasses name the operator class themselves")
        self.metric = metric
        self.chosen = options({"lists": lists, "bits": bits, "seed": seed})
        super().__init__(*expressions, **arguments)

    def deconstruct(self) -> tuple[str, Any, dict[str, Any]]:
        path, expressions, arguments = super().deconstruct()
        return path, expressions, arguments | ({} if self.metric is None else {"metric": self.metric}) | self.chosen

    def create_sql(self, model: Any, schema_editor: Any, using: str = "", **arguments: Any) -> Any:
        named = self
        if self.fields and not self.opclasses:
            named = copy.copy(self)
            kind = model._meta.get_field(self.fields_orders[0][0]).db_type(schema_editor.connection)
            # Nothing for the others: the server takes their types' own.
            named.opclasses = [operator_class(kind, self.metric or "l2"), *[""] * (len(self.fields) - 1)]
        return super(Ivflsh, named).create_sql(model, schema_editor, using, **arguments)

    def get_with_params(self) -> list[str]:
        return [f"{name} = {value}" for name, value in self.chosen.items()]
