//! Tables for people: columns as wide as their widest cell.

/// Aligns columns; the last one is not padded.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_aligned_without_trailing_spaces() {
        let row = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
        let text = super::aligned(&[row(["A", "B", "C", "D", "E"]), row(["long", "b", "c", "d", "/e"])]);
        assert_eq!(text, "A      B   C   D   E\nlong   b   c   d   /e\n");
    }
}
