//! The text form of a parsed file (`--emit ast`): stable, one instruction a line, every string quoted, no spans.
//!
//! ```text
//! arg "VERSION"="3.20"
//! stage 0 "build" from "alpine:$VERSION"
//!   copy link "go.mod" "go.sum" -> "/src/"
//!   run mount="type=cache,target=/root/.cache" shell "make"
//! stage 1 from "scratch"
//!   entrypoint exec "/server"
//! ```

use crate::ast::*;
use std::fmt::Write;

impl Parsed {
    /// Returns the text form.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        if let Some(syntax) = &self.directives.syntax {
            let _ = writeln!(out, "syntax {:?}", syntax.value);
        }
        if self.directives.escape != '\\' {
            let _ = writeln!(out, "escape {:?}", self.directives.escape.to_string());
        }
        for instruction in &self.global_args {
            line(&mut out, 0, &instruction.kind);
        }
        for (index, stage) in self.stages.iter().enumerate() {
            let _ = write!(out, "stage {index}");
            if let Some(name) = &stage.name {
                let _ = write!(out, " {:?}", name.value);
            }
            let _ = write!(out, " from {:?}", stage.base.value);
            flag(&mut out, "platform", &stage.platform);
            out.push('\n');
            for instruction in &stage.instructions {
                line(&mut out, 1, &instruction.kind);
            }
        }
        out
    }
}

/// `write!` to a `String` cannot fail, so results are ignored throughout.
fn line(out: &mut String, depth: usize, kind: &InstructionKind) {
    let _ = write!(out, "{}{}", "  ".repeat(depth), kind.name().to_lowercase());
    let docs = arguments(out, depth, kind);
    // ONBUILD has ended its line already.
    if !matches!(kind, InstructionKind::Onbuild(_)) {
        out.push('\n');
    }
    for doc in docs {
        let _ = write!(out, "{}heredoc {:?} fd={}", "  ".repeat(depth + 1), doc.name.value, doc.fd);
        for (is_set, name) in [(doc.strip_tabs, " strip-tabs"), (!doc.expand, " literal")] {
            out.push_str(if is_set { name } else { "" });
        }
        let _ = writeln!(out, " {:?}", doc.body.value);
    }
}

/// Writes the arguments and returns the heredocs that follow on lines of their own.
fn arguments<'a>(out: &mut String, depth: usize, kind: &'a InstructionKind) -> Vec<&'a Heredoc> {
    match kind {
        InstructionKind::From => {}
        InstructionKind::Arg(items) => {
            for item in items {
                let _ = write!(out, " {:?}", item.name.value);
                if let Some(default) = &item.default {
                    let _ = write!(out, "={:?}", default.value);
                }
            }
        }
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
            for pair in pairs {
                let _ = write!(out, " {:?}={:?}", pair.key.value, pair.value.value);
            }
        }
        InstructionKind::Copy(args) | InstructionKind::Add(args) => return copy(out, args),
        InstructionKind::Run(args) => {
            many(out, "mount", &args.mounts);
            for (name, value) in [
                ("network", args.network.as_ref().map(|n| format!("{:?}", n.value).to_lowercase())),
                ("security", args.security.as_ref().map(|s| format!("{:?}", s.value).to_lowercase())),
            ] {
                if let Some(value) = value {
                    let _ = write!(out, " {name}={value:?}");
                }
            }
            many(out, "device", &args.devices);
            command(out, &args.command);
            return args.heredocs.iter().collect();
        }
        InstructionKind::Cmd(args) | InstructionKind::Entrypoint(args) => command(out, args),
        InstructionKind::Workdir(word)
        | InstructionKind::User(word)
        | InstructionKind::StopSignal(word)
        | InstructionKind::Maintainer(word) => {
            let _ = write!(out, " {:?}", word.value);
        }
        InstructionKind::Expose(words) | InstructionKind::Volume(words) | InstructionKind::Shell(words) => {
            for word in words {
                let _ = write!(out, " {:?}", word.value);
            }
        }
        InstructionKind::Healthcheck(Healthcheck::None) => out.push_str(" none"),
        InstructionKind::Healthcheck(Healthcheck::Cmd { command: argv, interval, timeout, start_period, start_interval, retries }) => {
            for (name, time) in
                [("interval", interval), ("timeout", timeout), ("start-period", start_period), ("start-interval", start_interval)]
            {
                if let Some(time) = time {
                    let _ = write!(out, " {name}={time:?}");
                }
            }
            if let Some(retries) = retries {
                let _ = write!(out, " retries={retries}");
            }
            command(out, argv);
        }
        InstructionKind::Onbuild(args) => {
            out.push('\n');
            line(out, depth + 1, &args.instruction.kind);
        }
    }
    vec![]
}

fn copy<'a>(out: &mut String, args: &'a CopyArgs) -> Vec<&'a Heredoc> {
    flag(out, "from", &args.from);
    flag(out, "chown", &args.chown);
    flag(out, "chmod", &args.chmod);
    for (is_set, name) in [(args.link, " link"), (args.parents, " parents")] {
        out.push_str(if is_set { name } else { "" });
    }
    many(out, "exclude", &args.exclude);
    flag(out, "checksum", &args.checksum);
    for (name, value) in [("keep-git-dir", args.keep_git_dir), ("unpack", args.unpack)] {
        if let Some(value) = value {
            let _ = write!(out, " {name}={value}");
        }
    }
    let mut docs = vec![];
    for source in &args.sources {
        match source {
            Source::Path(path) => {
                let _ = write!(out, " {:?}", path.value);
            }
            Source::Heredoc(doc) => {
                let _ = write!(out, " <<{:?}", doc.name.value);
                docs.push(doc);
            }
        }
    }
    let _ = write!(out, " -> {:?}", args.dest.value);
    docs
}

fn flag(out: &mut String, name: &str, value: &Option<Word>) {
    if let Some(value) = value {
        let _ = write!(out, " {name}={:?}", value.value);
    }
}

fn many(out: &mut String, name: &str, values: &[Word]) {
    for value in values {
        let _ = write!(out, " {name}={:?}", value.value);
    }
}

fn command(out: &mut String, command: &Command) {
    match command {
        Command::Shell(text) => {
            let _ = write!(out, " shell {:?}", text.value);
        }
        Command::Exec(argv) => {
            out.push_str(" exec");
            for word in argv {
                let _ = write!(out, " {:?}", word.value);
            }
        }
    }
}
