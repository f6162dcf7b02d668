//! SQL errors as values: computed with `?`, raised once, at the edge, when nothing else is alive.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;

pub type Result<T> = std::result::Result<T, SqlError>;

/// What `ereport(ERROR)` needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    pub code: PgSqlErrorCode,
    pub message: String,
    pub detail: Option<&'static str>,
}

impl SqlError {
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        SqlError { code, message: message.into(), detail: None }
    }

    /// SQLSTATE 22000, what the ecosystem uses for every wrong shape or value of a vector.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, message)
    }

    /// SQLSTATE 54000, a documented maximum exceeded.
    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, message)
    }

    /// SQLSTATE 22003, a number that the type cannot hold.
    pub fn out_of_range(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, message)
    }

    /// SQLSTATE 22023, a bad type modifier.
    pub fn parameter(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
    }

    /// SQLSTATE XX001, a stored value whose size and header disagree.
    pub fn corrupted(type_name: &str) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, format!("{type_name} value is corrupted"))
    }

    /// SQLSTATE 22P02, text that is not a value of the type; quotes the text.
    pub fn syntax(type_name: &str, text: &[u8]) -> Self {
        Self::new(
            PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
            format!("invalid input syntax for type {type_name}: \"{}\"", quotable(text)),
        )
    }

    pub fn overflow() -> Self {
        Self::out_of_range("value out of range: overflow")
    }

    pub fn underflow() -> Self {
        Self::out_of_range("value out of range: underflow")
    }

    pub fn with_detail(mut self, detail: &'static str) -> Self {
        self.detail = Some(detail);
        self
    }

    /// Raise as a PostgreSQL ERROR: unwinds to the nearest pgrx guard, which hands it to the server.
    pub fn raise(self) -> ! {
        let mut report = ErrorReport::new(self.code, self.message, "vector_ext");
        if let Some(detail) = self.detail {
            report = report.set_detail(detail);
        }
        report.report(pgrx::PgLogLevel::ERROR);
        unreachable!("an ERROR report does not return")
    }
}

/// User text for a message. UTF-8 stays byte for byte what it was (so it is right in every server encoding); anything
/// else is reduced to ASCII, because a message must convert to the client's encoding.
pub fn quotable(text: &[u8]) -> String {
    match std::str::from_utf8(text) {
        Ok(text) => text.to_owned(),
        Err(_) => text.iter().map(|&b| if b.is_ascii() { b as char } else { '?' }).collect(),
    }
}
