//! setsockopt(2) and getsockopt(2): `SOL_SOCKET` here, other levels in the family.

use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

use libos_core::abi::net as linux;
use libos_core::file::RawFd;
use libos_core::socket::{Socket, option_int as int};
use libos_core::user::{UserPtr, UserSlice};
use libos_core::{Errno, Result, Task};

use crate::with_socket;

const SOL_SOCKET: i32 = linux::SOL_SOCKET as i32;
/// Smallest buffers that Linux sets (`SOCK_MIN_SNDBUF`, `SOCK_MIN_RCVBUF`), and the largest (`net.core.wmem_max`).
const BUFFER_BYTES: core::ops::RangeInclusive<u32> = 2304..=425_984;

pub(crate) fn sys_setsockopt(task: &Task, fd: RawFd, level: i32, name: i32, value: UserPtr<u8>, len: i32) -> Result<usize> {
    with_socket(task, fd, |_, socket| {
        let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
        // Longer values than any option has are cut, not refused: Linux reads only what the option needs.
        let mut bytes = [0; 256];
        let count = len.min(bytes.len());
        UserSlice::from_parts(value, count)?.read_to(&mut bytes[..count])?;
        let bytes = &bytes[..count];
        if level == SOL_SOCKET { set(socket, name as u32, bytes) } else { socket.set_option(level, name, bytes) }.map(|()| 0)
    })
}

pub(crate) fn sys_getsockopt(task: &Task, fd: RawFd, level: i32, name: i32, value: UserPtr<u8>, len: UserPtr<i32>) -> Result<usize> {
    with_socket(task, fd, |_, socket| {
        let room = usize::try_from(len.read()?).map_err(|_| Errno::EINVAL)?;
        let bytes = if level == SOL_SOCKET { get(socket, name as u32)? } else { socket.option(level, name)? };
        let count = bytes.len().min(room);
        UserSlice::from_parts(value, count)?.write_from(&bytes[..count])?;
        len.write(count as i32)?;
        Ok(0)
    })
}

fn long(bytes: &[u8], index: usize) -> Result<i64> {
    let chunk = bytes.get(index * 8..index * 8 + 8).ok_or(Errno::EINVAL)?;
    Ok(i64::from_ne_bytes(chunk.try_into().expect("eight bytes")))
}

fn set(socket: &dyn Socket, name: u32, bytes: &[u8]) -> Result<()> {
    let options = socket.options();
    // Linux doubles the size, to account for its own bookkeeping (socket(7), `SO_RCVBUF`).
    let buffer_bytes = |value: i32| (value.max(0) as u32).saturating_mul(2).clamp(*BUFFER_BYTES.start(), *BUFFER_BYTES.end());
    match name {
        linux::SO_REUSEADDR => options.reuse_address.store(int(bytes)? != 0, Relaxed),
        linux::SO_REUSEPORT => options.reuse_port.store(int(bytes)? != 0, Relaxed),
        linux::SO_KEEPALIVE => options.keep_alive.store(int(bytes)? != 0, Relaxed),
        linux::SO_BROADCAST => options.broadcast.store(int(bytes)? != 0, Relaxed),
        linux::SO_PASSCRED => options.pass_credentials.store(int(bytes)? != 0, Relaxed),
        linux::SO_OOBINLINE => options.out_of_band_inline.store(int(bytes)? != 0, Relaxed),
        linux::SO_TIMESTAMP => options.timestamp.store(int(bytes)? != 0, Relaxed),
        linux::SO_PRIORITY => options.priority.store(int(bytes)? as u32, Relaxed),
        linux::SO_MARK => options.mark.store(int(bytes)? as u32, Relaxed),
        linux::SO_RCVBUF | linux::SO_RCVBUFFORCE => options.receive_buffer.store(buffer_bytes(int(bytes)?), Relaxed),
        linux::SO_SNDBUF | linux::SO_SNDBUFFORCE => options.send_buffer.store(buffer_bytes(int(bytes)?), Relaxed),
        linux::SO_RCVLOWAT => options.receive_low_water.store(int(bytes)?.max(1) as u32, Relaxed),
        linux::SO_LINGER => {
            let is_on = int(bytes)? != 0;
            let seconds = int(bytes.get(4..).ok_or(Errno::EINVAL)?)?;
            options.linger.store(if is_on { seconds.max(0) } else { -1 }, Relaxed);
        }
        linux::SO_RCVTIMEO => options.receive_timeout_ns.store(timeout_ns(bytes)?, Relaxed),
        linux::SO_SNDTIMEO => options.send_timeout_ns.store(timeout_ns(bytes)?, Relaxed),
        // Hints about hardware that is not there.
        linux::SO_BUSY_POLL | linux::SO_INCOMING_CPU | linux::SO_DONTROUTE | linux::SO_TIMESTAMPNS | linux::SO_RXQ_OVFL => {
            int(bytes)?;
        }
        linux::SO_TYPE | linux::SO_ERROR | linux::SO_DOMAIN | linux::SO_PROTOCOL | linux::SO_ACCEPTCONN | linux::SO_PEERCRED => {
            return Err(Errno::ENOPROTOOPT);
        }
        linux::SO_BINDTODEVICE => return Err(Errno::EPERM),
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(())
}

/// A `struct timeval` in nanoseconds; zero is no timeout.
fn timeout_ns(bytes: &[u8]) -> Result<u64> {
    let (seconds, micros) = (long(bytes, 0)?, long(bytes, 1)?);
    if !(0..1_000_000).contains(&micros) {
        return Err(Errno::EDOM);
    }
    Ok((seconds.max(0) as u64).saturating_mul(1_000_000_000).saturating_add(micros as u64 * 1000))
}

fn get(socket: &dyn Socket, name: u32) -> Result<Vec<u8>> {
    let options = socket.options();
    let (domain, kind, protocol) = socket.kind();
    let value = match name {
        linux::SO_REUSEADDR => options.reuse_address.load(Relaxed).into(),
        linux::SO_REUSEPORT => options.reuse_port.load(Relaxed).into(),
        linux::SO_KEEPALIVE => options.keep_alive.load(Relaxed).into(),
        linux::SO_BROADCAST => options.broadcast.load(Relaxed).into(),
        linux::SO_PASSCRED => options.pass_credentials.load(Relaxed).into(),
        linux::SO_OOBINLINE => options.out_of_band_inline.load(Relaxed).into(),
        linux::SO_TIMESTAMP => options.timestamp.load(Relaxed).into(),
        linux::SO_PRIORITY => options.priority.load(Relaxed) as i32,
        linux::SO_MARK => options.mark.load(Relaxed) as i32,
        linux::SO_RCVBUF => options.receive_buffer.load(Relaxed) as i32,
        linux::SO_SNDBUF => options.send_buffer.load(Relaxed) as i32,
        linux::SO_RCVLOWAT => options.receive_low_water.load(Relaxed) as i32,
        linux::SO_SNDLOWAT => 1,
        linux::SO_TYPE => kind,
        linux::SO_DOMAIN => domain,
        linux::SO_PROTOCOL => protocol,
        linux::SO_ERROR => socket.take_error().map_or(0, |e| i32::from(e.0)),
        linux::SO_ACCEPTCONN => socket.is_listening().into(),
        linux::SO_DONTROUTE | linux::SO_BUSY_POLL | linux::SO_TIMESTAMPNS | linux::SO_INCOMING_CPU => 0,
        linux::SO_LINGER => {
            let seconds = options.linger.load(Relaxed);
            return Ok(words(&[(seconds >= 0).into(), seconds.max(0)]));
        }
        linux::SO_RCVTIMEO => return Ok(timeval(options.receive_timeout_ns.load(Relaxed))),
        linux::SO_SNDTIMEO => return Ok(timeval(options.send_timeout_ns.load(Relaxed))),
        linux::SO_PEERCRED => {
            let (pid, uid, gid) = socket.peer_credentials()?;
            return Ok(words(&[pid, uid as i32, gid as i32]));
        }
        _ => return Err(Errno::ENOPROTOOPT),
    };
    Ok(words(&[value]))
}

fn words(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn timeval(ns: u64) -> Vec<u8> {
    [ns / 1_000_000_000, ns % 1_000_000_000 / 1000].iter().flat_map(|v| v.to_ne_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_timevals() {
        assert_eq!(timeout_ns(&timeval(1_500_000_000)), Ok(1_500_000_000));
        assert_eq!(timeout_ns(&[0; 15]), Err(Errno::EINVAL));
        let mut bad = timeval(0);
        bad[8..].copy_from_slice(&1_000_000i64.to_ne_bytes());
        assert_eq!(timeout_ns(&bad), Err(Errno::EDOM));
    }
}
