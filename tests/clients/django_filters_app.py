"""A Django model whose index has filter columns behind the vector. Prints what it sees, as JSON.

Reads a task from standard input: {host, database, rows, query}.
"""

import json
import sys

import django
from django.conf import settings

task = json.load(sys.stdin)
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "HOST": task["host"], "PORT": "5432", "NAME": task["database"],
                                          "USER": "postgres"}},
                   INSTALLED_APPS=["django.contrib.postgres"], DEFAULT_AUTO_FIELD="django.db.models.BigAutoField")
django.setup()

from django.db import connection, models  # noqa: E402
from pgvector.django import HnswIndex, L2Distance, VectorField  # noqa: E402


class Item(models.Model):
    tenant = models.IntegerField()
    embedding = VectorField(dimensions=3)

    class Meta:
        app_label = "app"
        db_table = "items"
        indexes = [HnswIndex(name="by_tenant", fields=["embedding", "tenant"], opclasses=["vector_l2_ops", "int4_ops"])]


with connection.cursor() as cursor:
    cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
with connection.schema_editor() as editor:
    editor.create_model(Item)
Item.objects.bulk_create([Item(id=i, tenant=i % 4, embedding=v) for i, v in task["rows"]])
nearest = Item.objects.filter(tenant=3).order_by(L2Distance("embedding", task["query"]))
with connection.cursor() as cursor:
    cursor.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'by_tenant'")
    definition = cursor.fetchone()[0]
print(json.dumps({"near": list(nearest.values_list("id", flat=True)[:5]), "plan": nearest[:5].explain(), "definition": definition}))
