//! "Did you mean": the known word that is closest to a misspelt one.

/// Returns the candidate with the smallest edit distance to `word`, case ignored, if it is close: at most one edit for each three characters, and at least
/// one. Swapping two neighbours is one edit. Of equally close candidates the first wins.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let other: Vec<char> = candidate.to_lowercase().chars().collect();
        let limit = (word.len().max(other.len()) / 3).max(1);
        // A word that shares nothing with the candidate is not a misspelling of it.
        if word.len().abs_diff(other.len()) > limit || word.len().min(other.len()) < 2 {
            continue;
        }
        let distance = distance(&word, &other);
        if distance <= limit && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance: insertions, deletions, substitutions, swaps of neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = vec![];
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i];
        for j in 1..=b.len() {
            let mut best = (row[j] + 1).min(next[j - 1] + 1).min(row[j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_instructions() {
        let known = ["FROM", "RUN", "COPY", "ENTRYPOINT", "EXPOSE", "ENV", "ARG", "CMD", "HEALTHCHECK", "WORKDIR"];
        for (word, expected) in [
            ("FORM", Some("FROM")),
            ("fro", Some("FROM")),
            ("RUNN", Some("RUN")),
            ("CPOY", Some("COPY")),
            ("ENTRYPIONT", Some("ENTRYPOINT")),
            ("EXPORT", Some("EXPOSE")),
            ("ENVV", Some("ENV")),
            ("apt-get", None),
            ("X", None),
            ("", None),
        ] {
            assert_eq!(closest(word, known), expected, "{word}");
        }
    }
}
