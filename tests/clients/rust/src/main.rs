//! tokio-postgres, sqlx and Diesel with the `pgvector` crate. Reads a task from standard input, prints what the client saw.
//! usage: clients NAME      task: {host, database, rows: [[id, [x, y, z]], ...], query, extension, hnsw, ivfflat}

use serde_json::{Value, json};

struct Task {
    host: String,
    database: String,
    rows: Vec<(i64, Vec<f32>)>,
    query: Vec<f32>,
    extension: String,
    hnsw: String,
    ivfflat: String,
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn task() -> Task {
    let task: Value = serde_json::from_reader(std::io::stdin()).expect("a task");
    let text = |name: &str| task[name].as_str().unwrap().to_owned();
    Task {
        host: text("host"),
        database: text("database"),
        rows: task["rows"].as_array().unwrap().iter().map(|row| (row[0].as_i64().unwrap(), floats(&row[1]))).collect(),
        query: floats(&task["query"]),
        extension: text("extension"),
        hnsw: text("hnsw"),
        ivfflat: text("ivfflat"),
    }
}

async fn tokio_postgres(task: Task) -> Result<Value, Box<dyn std::error::Error>> {
    use pgvector::{HalfVector, Vector};
    let settings = format!("host={} user=postgres dbname={}", task.host, task.database);
    let (client, connection) = tokio_postgres::connect(&settings, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute(&format!("CREATE EXTENSION IF NOT EXISTS {}", task.extension)).await?;
    client.batch_execute("CREATE TABLE items (id bigint PRIMARY KEY, embedding vector(3), half halfvec(3))").await?;
    for (id, embedding) in &task.rows {
        let half = HalfVector::from_f32_slice(embedding);
        let embedding = Vector::from(embedding.clone());
        client.execute("INSERT INTO items VALUES ($1, $2, $3)", &[id, &embedding, &half]).await?;
    }
    let (hnsw, ivfflat) = (&task.hnsw, &task.ivfflat);
    client.batch_execute(&format!("CREATE INDEX ON items USING {hnsw} (embedding vector_l2_ops)")).await?;
    client.batch_execute(&format!("CREATE INDEX ON items USING {ivfflat} (half halfvec_cosine_ops) WITH (lists = 4)")).await?;
    let query = Vector::from(task.query.clone());
    let mut seen = vec![];
    for row in client.query("SELECT id, embedding FROM items ORDER BY embedding <-> $1 LIMIT 5", &[&query]).await? {
        seen.push(json!([row.get::<_, i64>(0), row.get::<_, Vector>(1).to_vec()]));
    }
    let half = HalfVector::from_f32_slice(&task.query);
    for row in client.query("SELECT id FROM items ORDER BY half <=> $1 LIMIT 5", &[&half]).await? {
        seen.push(json!(row.get::<_, i64>(0)));
    }
    Ok(json!(seen))
}

async fn sqlx(task: Task) -> Result<Value, Box<dyn std::error::Error>> {
    use pgvector::Vector;
    use sqlx::{AssertSqlSafe, Row};
    let options = sqlx::postgres::PgConnectOptions::new().socket(&task.host).username("postgres").database(&task.database);
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(2).connect_with(options).await?;
    sqlx::query(AssertSqlSafe(format!("CREATE EXTENSION IF NOT EXISTS {}", task.extension))).execute(&pool).await?;
    sqlx::query("CREATE TABLE items (id bigint PRIMARY KEY, embedding vector(3))").execute(&pool).await?;
    for (id, embedding) in &task.rows {
        let embedding = Vector::from(embedding.clone());
        sqlx::query("INSERT INTO items VALUES ($1, $2)").bind(id).bind(embedding).execute(&pool).await?;
    }
    let index = format!("CREATE INDEX ON items USING {} (embedding vector_cosine_ops)", task.hnsw);
    sqlx::query(AssertSqlSafe(index)).execute(&pool).await?;
    let rows = sqlx::query("SELECT id, embedding FROM items ORDER BY embedding <=> $1 LIMIT 5")
        .bind(Vector::from(task.query))
        .fetch_all(&pool)
        .await?;
    pool.close().await;
    Ok(rows.iter().map(|row| json!([row.get::<i64, _>(0), row.get::<Vector, _>(1).to_vec()])).collect())
}

mod schema {
    diesel::table! {
        use diesel::sql_types::*;
        use pgvector::sql_types::*;

        items (id) {
            id -> BigInt,
            embedding -> Nullable<Vector>,
        }
    }
}

fn diesel(task: Task) -> Result<Value, Box<dyn std::error::Error>> {
    use diesel::prelude::*;
    use pgvector::{Vector, VectorExpressionMethods};
    use schema::items::dsl::*;
    let settings = format!("host={} user=postgres dbname={}", task.host, task.database);
    let mut connection = diesel::PgConnection::establish(&settings)?;
    let mut run = |statement: &str| diesel::sql_query(statement).execute(&mut connection);
    run(&format!("CREATE EXTENSION IF NOT EXISTS {}", task.extension))?;
    run("CREATE TABLE items (id bigint PRIMARY KEY, embedding vector(3))")?;
    run(&format!("CREATE INDEX by_l2 ON items USING {} (embedding vector_l2_ops)", task.hnsw))?;
    let rows: Vec<_> = task.rows.iter().map(|(i, v)| (id.eq(i), embedding.eq(Vector::from(v.clone())))).collect();
    diesel::insert_into(items).values(&rows).execute(&mut connection)?;
    let query = Vector::from(task.query);
    let near = items.order(embedding.l2_distance(&query)).limit(5).load::<(i64, Option<Vector>)>(&mut connection)?;
    let inner = items.select(id).order(embedding.max_inner_product(&query)).limit(5).load::<i64>(&mut connection)?;
    let near: Vec<_> = near.into_iter().map(|(i, v)| json!([i, v.map(|v| v.to_vec())])).collect();
    Ok(json!([near, inner]))
}

fn main() {
    let name = std::env::args().nth(1).expect("a client's name");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let seen = match name.as_str() {
        "tokio_postgres" => runtime.block_on(tokio_postgres(task())),
        "sqlx" => runtime.block_on(sqlx(task())),
        "diesel" => diesel(task()),
        _ => panic!("no client of that name: {name}"),
    };
    match seen {
        Ok(seen) => println!("\n{seen}"),
        Err(error) => panic!("{error}: {error:?}"),
    }
}
