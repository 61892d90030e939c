//! A Markdown table whose columns are aligned.

use std::fmt;

/// Rows of text under a title; the first row is the header.
pub struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>, header: &[&str]) -> Table {
        Table { title: title.into(), rows: vec![header.iter().map(|&h| h.to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0).max(3);
        write!(f, "\n### {}\n\n", self.title)?;
        for (index, row) in self.rows.iter().enumerate() {
            for column in 0..columns {
                write!(f, "| {:<1$} ", row.get(column).map_or("", String::as_str), width(column))?;
            }
            writeln!(f, "|")?;
            if index == 0 {
                for column in 0..columns {
                    write!(f, "|{}", "-".repeat(width(column) + 2))?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// `a / b` with two digits that count, or a dash without a peer.
pub fn ratio(a: f64, b: f64) -> String {
    let value = a / b;
    match value {
        v if !v.is_finite() => "-".to_owned(),
        v if v >= 10.0 => format!("{v:.0}"),
        v if v >= 0.1 => format!("{v:.2}"),
        v => format!("{v:.4}"),
    }
}

/// Thousands separated by thin blanks' plain cousin: `1 234 567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new("t", &["what", "n"]);
        table.row(["a".to_owned(), "1000".to_owned()]);
        assert_eq!(table.to_string(), "\n### t\n\n| what | n    |\n|------|------|\n| a    | 1000 |\n");
    }

    #[test]
    fn numbers() {
        assert_eq!(grouped(1_234_567), "1 234 567");
        assert_eq!(grouped(12), "12");
        assert_eq!(ratio(1.0, 0.0), "-");
        assert_eq!(ratio(1.0, 3.0), "0.33");
        assert_eq!(ratio(1.0, 400.0), "0.0025");
    }
}
