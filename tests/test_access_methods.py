"""Access methods are ours by their handler: another name, beside `ivflsh`, is as good."""

import pytest

OTHER = """
    CREATE ACCESS METHOD other TYPE INDEX HANDLER ivflsh_handler;
    CREATE OPERATOR CLASS other_l2_ops DEFAULT FOR TYPE vector USING other AS
        OPERATOR 1 <-> (vector, vector) FOR ORDER BY float_ops, FUNCTION 1 (vector, vector) ivflsh_vector_l2();
    CREATE OPERATOR CLASS other_int4_ops DEFAULT FOR TYPE int4 USING other AS
        OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 (int4, int4) ivflsh_filter_int4();
    CREATE TABLE items (id int, tenant int, v vector(8));
    INSERT INTO items SELECT i, i % 20, ARRAY(SELECT sin(i * j) FROM generate_series(1, 8) j) FROM generate_series(1, 3000) i;
"""


@pytest.fixture
def items(db):
    db.execute(OTHER)
    return db


def plan(db, query):
    return "\n".join(row[0] for row in db.execute("EXPLAIN (VERBOSE, COSTS OFF) " + query))


def test_whatever_the_name_all_of_the_library_knows_the_index(items):
    items.execute("CREATE INDEX items_other ON items USING other (v, tenant)")
    items.execute("ANALYZE items")
    assert items.execute("SELECT ivflsh_recall('items_other') > 0.8, ivflsh_stats('items_other') IS NOT NULL").fetchone() == (True, True)
    assert items.execute("SELECT rows FROM ivflsh_check('items_other')").fetchone() == (3000,)
    query = "SELECT id FROM items ORDER BY v <-> (SELECT v FROM items WHERE id = 7) LIMIT 5"
    assert "Index Scan using items_other" in plan(items, query)
    # The distance that nobody sees is not computed, and IN is a condition of the scan.
    assert "NULL::double precision" in plan(items, "SELECT id FROM items ORDER BY v <-> '[1,2,3,4,5,6,7,8]' LIMIT 5")
    shown = plan(items, "SELECT id FROM items WHERE tenant IN (3, 4) ORDER BY v <-> '[1,2,3,4,5,6,7,8]' LIMIT 5")
    assert "Index Cond: (items.tenant = ANY" in shown, shown
    shown = plan(items, "SELECT id FROM items WHERE tenant <> 3 ORDER BY v <-> '[1,2,3,4,5,6,7,8]' LIMIT 5")
    assert "vector scan" in shown, shown


def test_a_method_made_anew_is_known_at_once(items):
    items.execute("CREATE INDEX items_other ON items USING other (v)")
    assert items.execute("SELECT ivflsh_prewarm('items_other') > 0").fetchone() == (True,)
    items.execute("DROP ACCESS METHOD other CASCADE")
    items.execute(OTHER[:OTHER.index("CREATE TABLE")])
    items.execute("CREATE INDEX items_other ON items USING other (v)")
    assert items.execute("SELECT ivflsh_prewarm('items_other') > 0").fetchone() == (True,)


def test_indexes_of_other_methods_are_refused(items, refused):
    items.execute("CREATE INDEX items_id ON items (id)")
    refused(items, "42809", "is not an ivflsh index", "SELECT ivflsh_stats('items_id')")
    refused(items, "42809", "not an index", "SELECT ivflsh_stats('items')")


def test_null_tests_of_the_vector_alone_leave_the_plain_scan(items):
    items.execute("CREATE INDEX items_v ON items USING ivflsh (v)")
    items.execute("ANALYZE items")
    shown = plan(items, "SELECT id FROM items WHERE v IS NOT NULL ORDER BY v <-> '[1,2,3,4,5,6,7,8]' LIMIT 5")
    assert "Index Scan using items_v" in shown, shown


def test_no_other_class_of_vectors_serves(items, refused):
    """A support function that is none of ours is not called."""
    items.execute("""CREATE OPERATOR CLASS odd_ops FOR TYPE vector USING ivflsh AS
        OPERATOR 1 <+> (vector, vector) FOR ORDER BY float_ops, FUNCTION 1 (vector, vector) l1_distance(vector, vector)""")
    refused(items, "0A000", "this distance is not supported", "CREATE INDEX ON items USING ivflsh (v odd_ops)")
    refused(items, "0A000", "column 2 of an ivflsh index cannot be a vector",
            "CREATE INDEX ON items USING ivflsh (v vector_l2_ops, v odd_ops)")


def test_amvalidate(db):
    """Tells operator classes that cannot work from those that can, all of the extension's among them."""
    assert db.execute("""SELECT count(*) > 10, bool_and(amvalidate(c.oid)) FROM pg_opclass c JOIN pg_am a ON a.oid = opcmethod
                         WHERE amname = 'ivflsh'""").fetchone() == (True, True)
    db.execute("""
        CREATE FUNCTION not_ours() RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT 77777';
        CREATE FUNCTION of_text() RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT NULL';
        CREATE OPERATOR CLASS no_operator FOR TYPE vector USING ivflsh AS FUNCTION 1 (vector, vector) ivflsh_vector_l2();
        CREATE OPERATOR CLASS no_function FOR TYPE vector USING ivflsh AS OPERATOR 1 <-> (vector, vector) FOR ORDER BY float_ops;
        CREATE OPERATOR CLASS no_order FOR TYPE vector USING ivflsh AS
            OPERATOR 1 = (vector, vector), FUNCTION 1 (vector, vector) ivflsh_vector_l2();
        CREATE OPERATOR CLASS too_many FOR TYPE vector USING ivflsh AS OPERATOR 1 <-> (vector, vector) FOR ORDER BY float_ops,
            OPERATOR 2 <=> (vector, vector) FOR ORDER BY float_ops, FUNCTION 1 (vector, vector) ivflsh_vector_l2();
        CREATE OPERATOR CLASS other_strategy FOR TYPE vector USING ivflsh AS
            OPERATOR 2 <-> (vector, vector) FOR ORDER BY float_ops, FUNCTION 1 (vector, vector) ivflsh_vector_l2();
        CREATE OPERATOR CLASS unknown_kind FOR TYPE vector USING ivflsh AS
            OPERATOR 1 <-> (vector, vector) FOR ORDER BY float_ops, FUNCTION 1 (vector, vector) not_ours();
        CREATE OPERATOR CLASS not_a_number FOR TYPE vector USING ivflsh AS
            OPERATOR 1 <-> (vector, vector) FOR ORDER BY float_ops, FUNCTION 1 (vector, vector) of_text();
        CREATE OPERATOR CLASS as_it_should_be FOR TYPE vector USING ivflsh AS
            OPERATOR 1 <-> (vector, vector) FOR ORDER BY float_ops, FUNCTION 1 (vector, vector) ivflsh_vector_l2();
    """)
    found = dict(db.execute("SELECT opcname, amvalidate(oid) FROM pg_opclass WHERE opcnamespace = 'public'::regnamespace AND "
                            "opcname ~ '^(no_|too_|other_|unknown|not_|as_it)'").fetchall())
    assert found == {"no_operator": False, "no_function": False, "no_order": False, "too_many": False, "other_strategy": False,
                     "unknown_kind": False, "not_a_number": False, "as_it_should_be": True}
