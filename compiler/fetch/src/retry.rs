//! Which failures are tried again, and when.
//!
//! A server that is busy (429, 503) may say when to come back (`Retry-After`, RFC 9110, 10.2.3: seconds, or a date); else the pause doubles from one
//! attempt to the next, with some chance in it so that many clients do not come back together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Asked again and again during long work; once it answers `true`, the work ends.
#[derive(Clone)]
pub struct Cancel(Arc<dyn Fn() -> bool + Send + Sync>);

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cancel")
    }
}

impl Default for Cancel {
    fn default() -> Cancel {
        Cancel(Arc::new(|| false))
    }
}

impl Cancel {
    /// Wraps a question.
    pub fn new(ask: impl Fn() -> bool + Send + Sync + 'static) -> Cancel {
        Cancel(Arc::new(ask))
    }

    /// A question that a flag answers.
    pub fn flag(flag: Arc<AtomicBool>) -> Cancel {
        Cancel::new(move || flag.load(Ordering::Relaxed))
    }

    /// Whether to end.
    pub fn is_set(&self) -> bool {
        (self.0)()
    }

    /// Waits, and returns early with `false` when the work is to end.
    #[must_use]
    pub fn sleep(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            if self.is_set() {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// Whether a failed attempt is worth another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// No: the answer would be the same.
    No,
    /// After the usual pause.
    Soon,
    /// When the server said.
    After(Duration),
}

/// Why an attempt failed.
#[derive(Debug)]
pub struct Failed<E> {
    /// For the caller, if this was the last attempt.
    pub error: E,
    /// Whether there shall be another.
    pub again: Again,
}

/// How often and how fast.
#[derive(Debug, Clone)]
pub struct Retries {
    /// Attempts in all.
    pub attempts: u32,
    /// The first pause; each further one is twice as long.
    pub first: Duration,
    /// No pause of ours is longer.
    pub longest: Duration,
    /// A server that asks for more patience than this is told no.
    pub patience: Duration,
}

impl Default for Retries {
    fn default() -> Retries {
        Retries { attempts: 6, first: Duration::from_millis(300), longest: Duration::from_secs(15), patience: Duration::from_secs(120) }
    }
}

impl Retries {
    /// Returns the pause before attempt `number` (the second one is 1).
    fn pause(&self, number: u32) -> Duration {
        let full = self.first.saturating_mul(1 << (number - 1).min(16)).min(self.longest);
        // Between half of it and all of it; the clock is chance enough.
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        full / 2 + full.mul_f64(f64::from(nanos % 1000) / 2000.0)
    }

    /// Calls `attempt` until it succeeds, is not worth repeating, or was made often enough.
    ///
    /// # Errors
    /// That of the last attempt.
    pub fn run<T, E>(&self, cancel: &Cancel, mut attempt: impl FnMut() -> Result<T, Failed<E>>) -> Result<T, E> {
        let mut number = 1;
        loop {
            let failed = match attempt() {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            if !self.wait(cancel, number, failed.again) {
                return Err(failed.error);
            }
            number += 1;
        }
    }

    /// Waits before another attempt, of which `number` were made. Returns whether there shall be one.
    pub fn wait(&self, cancel: &Cancel, number: u32, again: Again) -> bool {
        let pause = match again {
            Again::No => return false,
            Again::Soon => self.pause(number),
            Again::After(time) if time > self.patience => return false,
            Again::After(time) => time,
        };
        number < self.attempts && cancel.sleep(pause)
    }
}

/// Reads a `Retry-After`: seconds, or an HTTP date.
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(http_date(value)?).ok()?);
    Some(at.duration_since(now).unwrap_or_default())
}

/// Reads an HTTP date (RFC 9110, 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`) as seconds since the epoch.
pub fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words[..] else { return None };
    let (day, year): (i64, i64) = (day.parse().ok()?, year.parse().ok()?);
    let month = MONTHS.iter().position(|m| *m == month)? as i64 + 1;
    let mut clock = time.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if !(1..=31).contains(&day) || !(1..=9999).contains(&year) || hour > 23 || minute > 59 || second > 60 || clock.next().is_some() {
        return None;
    }
    // The civil calendar to days, with years that start in March so that the leap day comes last (H. Hinnant, "chrono-Compatible Low-Level Date
    // Algorithms", days_from_civil).
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted_year.div_euclid(400), shifted_year.rem_euclid(400));
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some((era * 146_097 + day_of_era - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Tue, 29 Feb 2000 12:34:56 GMT", Some(951_827_696)),
            ("Sun, 06 Foo 1994 08:49:37 GMT", None),
            ("06 Nov 1994", None),
            ("", None),
        ] {
            assert_eq!(http_date(text), expected, "{text}");
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_700);
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(77)));
        assert_eq!(retry_after(" 3 ", now), Some(Duration::from_secs(3)));
        assert_eq!(retry_after("Thu, 01 Jan 1970 00:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }

    #[test]
    fn attempts_are_counted_and_end() {
        let quick = Retries { first: Duration::from_millis(1), ..Retries::default() };
        let count = |again| {
            let mut made = 0;
            let result: Result<(), u32> = quick.run(&Cancel::default(), || {
                made += 1;
                Err(Failed { error: made, again })
            });
            result.unwrap_err()
        };
        assert_eq!((count(Again::No), count(Again::Soon), count(Again::After(Duration::from_secs(3600)))), (1, 6, 1));
        let mut made = 0;
        let found = quick.run(&Cancel::default(), || {
            made += 1;
            if made < 3 { Err(Failed { error: (), again: Again::After(Duration::ZERO) }) } else { Ok(made) }
        });
        assert_eq!(found, Ok(3));
    }

    #[test]
    fn a_pause_ends_when_the_work_does() {
        let start = Instant::now();
        assert!(!Cancel::new(|| true).sleep(Duration::from_secs(60)));
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let retries = Retries::default();
        assert!(retries.pause(1) <= retries.first && retries.pause(1) >= retries.first / 2);
        assert!(retries.pause(30) <= retries.longest && retries.pause(30) >= retries.longest / 2);
    }
}
