"""A Django application with pgvector's fields and indexes, migrated forwards and backwards. Prints what it sees, as JSON.

Reads a task from standard input: {host, database, rows, query}.
"""

import json
import sys

import django
from django.conf import settings

task = json.load(sys.stdin)
host, name, rows, query = task["host"], task["database"], task["rows"], task["query"]
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "HOST": host, "PORT": "5432", "NAME": name,
                                          "USER": "postgres"}},
                   INSTALLED_APPS=["django.contrib.postgres"], DEFAULT_AUTO_FIELD="django.db.models.BigAutoField")
django.setup()

from django.db import connection, migrations, models  # noqa: E402
from django.db.migrations.executor import MigrationExecutor  # noqa: E402
from django.db.migrations.state import ProjectState  # noqa: E402
from pgvector.django import CosineDistance, HnswIndex, IvfflatIndex, L2Distance, VectorExtension, VectorField  # noqa: E402


class Migration(migrations.Migration):
    initial = True
    operations = [
        VectorExtension(),
        migrations.CreateModel("Item", [("id", models.BigAutoField(primary_key=True)), ("embedding", VectorField(dimensions=3))],
                               options={"db_table": "items"}),
        migrations.AddIndex("item", HnswIndex(name="by_l2", fields=["embedding"], m=16, ef_construction=64, opclasses=["vector_l2_ops"])),
        migrations.AddIndex("item", IvfflatIndex(name="by_cosine", fields=["embedding"], lists=4, opclasses=["vector_cosine_ops"])),
    ]


migration = Migration("0001_initial", "app")
before = ProjectState()
with connection.schema_editor() as editor:
    after = migration.apply(before.clone(), editor)
Item = after.apps.get_model("app", "Item")
Item.objects.bulk_create([Item(id=i, embedding=v) for i, v in rows])
seen = {
    "nearest": list(Item.objects.order_by(L2Distance("embedding", query)).values_list("id", flat=True)[:5]),
    "cosine": list(Item.objects.order_by(CosineDistance("embedding", query)).values_list("id", flat=True)[:5]),
    "far": Item.objects.alias(far=L2Distance("embedding", query)).filter(far__lt=0.5).count(),
}
with connection.cursor() as cursor:
    cursor.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'items' ORDER BY 1")
    seen["indexes"] = cursor.fetchall()
# Backwards, without the extension, on which more may depend.
migration.operations = migration.operations[1:]
with connection.schema_editor() as editor:
    migration.unapply(before.clone(), editor)
with connection.cursor() as cursor:
    cursor.execute("SELECT to_regclass('items') IS NULL")
    seen["gone"] = cursor.fetchone()[0]
print(json.dumps(seen))
