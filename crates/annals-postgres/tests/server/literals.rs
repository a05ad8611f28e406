//! Values in the text of a statement arrive as they were.

use annals_postgres::sqlx::{AssertSqlSafe, Row, raw_sql};
use annals_postgres_shared::sql::query;
use uuid::Uuid;

use crate::common::{Place, Tested, tests};

tests! { "literals":
    Any values_in_the_text_arrive_as_they_were;
    Any a_nul_in_the_text_is_refused;
}

async fn values_in_the_text_arrive_as_they_were() -> Tested {
    const PARTS: [&str; 13] =
        ["", "'", "\\", "\"", "{", "}", ",", " ", "\n", "$1", "NULL", "\u{1}", "\u{1f4dc}"];
    let texts: Vec<String> = PARTS
        .iter()
        .flat_map(|a| PARTS.iter().flat_map(move |b| PARTS.map(|c| format!("{a}{b}{c}"))))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let all_bytes: Vec<u8> = (0..=255).collect();
    let bytes: Vec<&[u8]> = vec![b"", b"\\'\"", &all_bytes];
    let (id, numbers) = (Uuid::from_u128(7), vec![Some(i64::MIN), None, Some(i64::MAX)]);
    // Not the array itself: sqlx takes a text `NULL` in it for no text.
    let text = "SELECT (SELECT string_agg(t, '|' ORDER BY n) FROM unnest($1) WITH ORDINALITY AS a (t, n)), $2, $3, $4, $5, $6, $7, $8, $9, $10";
    let statement = query(&text.into())
        .bind(texts.clone())
        .bind(bytes.clone())
        .bind(numbers.clone())
        .bind(id)
        .bind(None::<&str>)
        .bind(Vec::<i16>::new())
        .bind(true)
        .bind(-7_i32)
        .bind(i16::MIN)
        .bind(texts[27]);
    let literals = statement.written_out().ok_or("the text is too long")?;
    let mut admin = Place::shared().await?.connect().await?;
    for conforming in ["on", "off"] {
        let set = format!("SET standard_conforming_strings = {conforming}");
        raw_sql(AssertSqlSafe(set)).execute(&mut admin).await?;
        let row = raw_sql(AssertSqlSafe(literals.clone())).fetch_one(&mut admin).await?;
        assert_eq!(row.try_get::<&str, _>(0)?, texts.join("|"));
        assert_eq!(row.try_get::<Vec<Vec<u8>>, _>(1)?, bytes);
        assert_eq!(row.try_get::<Vec<Option<i64>>, _>(2)?, numbers);
        assert_eq!(row.try_get::<Uuid, _>(3)?, id);
        assert_eq!(row.try_get::<Option<&str>, _>(4)?, None);
        assert_eq!(row.try_get::<Vec<i16>, _>(5)?, [0; 0]);
        assert!(row.try_get::<bool, _>(6)?);
        assert_eq!(row.try_get::<i32, _>(7)?, -7);
        assert_eq!(row.try_get::<i16, _>(8)?, i16::MIN);
        assert_eq!(row.try_get::<&str, _>(9)?, texts[27]);
    }
    Ok(())
}

/// PostgreSQL has no such text. The request must not end at it.
async fn a_nul_in_the_text_is_refused() -> Tested {
    let mut admin = Place::shared().await?.connect().await?;
    for values in [vec!["a\0b"], vec!["a", "\0"]] {
        let statement = query(&"SELECT $1".into()).bind(values);
        let literals = statement.written_out().ok_or("the text is too long")?;
        let error = raw_sql(AssertSqlSafe(literals)).fetch_one(&mut admin).await;
        let error = error.expect_err("there is no such text");
        assert_eq!(error.as_database_error().and_then(|e| e.code()).as_deref(), Some("22021"));
    }
    Ok(())
}
