//! TOML values as the texts that stand behind a flag.

use toml::Value;

/// Returns the texts: one for a plain value, several for a list, `NAME=value` for the fields of a table. None for what nests deeper.
pub fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(list) => list.iter().map(plain).collect(),
        Value::Table(table) => table.iter().map(|(name, value)| Some(format!("{name}={}", plain(value)?))).collect(),
        value => Some(vec![plain(value)?]),
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(is_so) => Some(is_so.to_string()),
        Value::Datetime(time) => Some(time.to_string()),
        Value::Array(_) | Value::Table(_) => None,
    }
}
