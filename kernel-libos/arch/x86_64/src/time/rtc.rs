//! The CMOS clock (MC146818A datasheet): whole seconds in UTC, which is what monitors show by default.

use crate::io::{inb, outb};

fn register(number: u8) -> u8 {
    outb(0x70, number);
    inb(0x71)
}

/// Returns Unix time in seconds, or `None` when there is no clock or it never holds still.
pub(super) fn read() -> Option<u64> {
    // Status A bit 7 says that an update is near; two equal readings are a good one.
    for _ in 0..10 {
        for _ in 0..10_000 {
            if register(0x0a) & 0x80 == 0 {
                break;
            }
        }
        let first = fields();
        if first == fields() {
            return unix_seconds(first, register(0x0b));
        }
    }
    None
}

/// Seconds, minutes, hours, day, month, year, century.
fn fields() -> [u8; 7] {
    [0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x32].map(register)
}

/// Converts the registers by status B: bit 2 is binary (else BCD), bit 1 is 24 hours.
fn unix_seconds(raw: [u8; 7], status: u8) -> Option<u64> {
    let binary = status & 4 != 0;
    let decode = |value: u8| if binary { value } else { (value >> 4) * 10 + (value & 15) };
    let afternoon = raw[2] & 0x80 != 0 && status & 2 == 0;
    let [second, minute, _, day, month, year, century] = raw.map(decode).map(u64::from);
    let mut hour = u64::from(decode(raw[2] & 0x7f));
    if status & 2 == 0 {
        hour = hour % 12 + if afternoon { 12 } else { 0 };
    }
    if second > 60 || minute > 59 || hour > 23 || !(1..=31).contains(&day) || !(1..=12).contains(&month) || year > 99 {
        return None;
    }
    let century = if (19..=21).contains(&century) { century } else { 20 };
    Some(days_from_civil(century * 100 + year, month, day)? * 86400 + hour * 3600 + minute * 60 + second)
}

/// Days from 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"); `None` before.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y / 400;
    let year_of_era = y - era * 400;
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        // `date -u -d '2026-11-25 01:02:03' +%s`
        assert_eq!(unix_seconds([0x03, 0x02, 0x01, 0x25, 0x11, 0x26, 0x20], 2), Some(1_795_568_523));
        assert_eq!(unix_seconds([3, 2, 1, 25, 11, 26, 20], 6), Some(1_795_568_523));
        // Twelve-hour form: 1 pm, 12 am, 12 pm.
        assert_eq!(unix_seconds([0, 0, 0x81, 1, 1, 0x70, 0x19], 0), Some(13 * 3600));
        assert_eq!(unix_seconds([0, 0, 0x12, 1, 1, 0x70, 0x19], 0), Some(0));
        assert_eq!(unix_seconds([0, 0, 0x92, 1, 1, 0x70, 0x19], 0), Some(12 * 3600));
        assert_eq!(unix_seconds([0xff; 7], 0xff), None);
        assert_eq!(days_from_civil(2000, 2, 29), Some(11016));
        assert_eq!(days_from_civil(2000, 3, 1), Some(11017));
    }
}
