//! Runs a prepared program on Linux and in the guest, and compares.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::compile::Prepared;
use crate::plan::Test;

/// Only a program that hangs takes this long, also on a slow machine with an emulated processor.
const HANG: Duration = Duration::from_secs(180);

/// How a program ended and what it printed, both streams in one.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit status, 128 + n after signal n.
    pub status: i32,
    /// Output, without the kernel's own lines.
    pub output: String,
}

/// Runs the test.
///
/// # Errors
/// What differs, or why something could not be run.
pub fn compare(test: &Test, prepared: &Prepared, ukc: &Path, dir: &Path) -> Result<(), String> {
    let work = dir.join("work");
    std::fs::create_dir_all(&work).map_err(|e| e.to_string())?;
    let path = format!("PATH={}", prepared.context.join("root/bin").display());
    let mut linux = Command::new(&prepared.command[0]);
    linux.args(&prepared.command[1..]).current_dir(&work);
    // What the image's boot record sets.
    linux.env_clear().env("PATH", path.trim_start_matches("PATH=")).env("HOSTNAME", "localhost").env("HOME", "/");
    let (expected, _) = observe(&mut linux, dir, "on Linux")?;

    let image = dir.join("image");
    let mut build = Command::new(ukc);
    build.arg("build").arg("--quiet").arg("-o").arg(&image).arg(&prepared.context);
    build.env("XDG_CACHE_HOME", dir.join("cache")).env("XDG_DATA_HOME", dir.join("data"));
    let (built, _) = observe(&mut build, dir, "while it was built")?;
    if built.status != 0 {
        return Err(format!("`ukc build` ended with {}:\n{}", built.status, built.output));
    }
    let mut guest = Command::new(ukc);
    guest.arg("run").arg("--quiet").args(&test.flags).arg(&image);
    let (found, kernel_lines) = observe(&mut guest, dir, "in the guest")?;
    if found == expected {
        return Ok(());
    }
    let mut report = String::new();
    if found.status != expected.status {
        report += &format!("exit status: {} on Linux, {} in the guest\n", expected.status, found.status);
    }
    if found.output != expected.output {
        report += &difference(&expected.output, &found.output);
    }
    if !kernel_lines.is_empty() {
        report += &format!("the kernel said:\n{kernel_lines}");
    }
    Err(report)
}

/// Runs a command to its end; returns also the kernel's lines of its output.
fn observe(command: &mut Command, dir: &Path, place: &str) -> Result<(Ended, String), String> {
    let path = dir.join("output");
    let mut file = File::options().create(true).truncate(true).read(true).write(true).open(&path).map_err(|e| e.to_string())?;
    let (out, err) = (file.try_clone().map_err(|e| e.to_string())?, file.try_clone().map_err(|e| e.to_string())?);
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    let mut child = command.spawn().map_err(|e| format!("cannot run {:?}: {e}", command.get_program()))?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            break Some(status);
        }
        if started.elapsed() > HANG {
            // An interrupted `ukc run` ends its machine; a killed one could not.
            let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
            std::thread::sleep(Duration::from_secs(12));
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (kernel, own): (Vec<&str>, Vec<&str>) = text.split_inclusive('\n').partition(|line| line.starts_with("ukc: "));
    let Some(status) = status else {
        return Err(format!("hangs {place}; until then it printed:\n{text}"));
    };
    use std::os::unix::process::ExitStatusExt as _;
    let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok((Ended { status, output: own.concat() }, kernel.concat()))
}

/// Shows the first lines that differ, with what is before them.
fn difference(expected: &str, found: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let same = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let mut out = format!("output differs from line {}:\n", same + 1);
    a[same.saturating_sub(3)..same].iter().for_each(|line| out += &format!("  {line}\n"));
    a[same..].iter().take(8).for_each(|line| out += &format!("- {line}\n"));
    b[same..].iter().take(8).for_each(|line| out += &format!("+ {line}\n"));
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_difference_shows_its_surroundings() {
        assert_eq!(super::difference("a\nb\nc\n", "a\nx\n"), "output differs from line 2:\n  a\n- b\n- c\n+ x\n");
    }
}
