//! The instructions that change the configuration, and WORKDIR.

use ukc_diagnostics::{Diagnostic, Span, suggest};
use ukc_dockerfile::{ArgItem, Command, Healthcheck, Instruction, InstructionKind, KeyValue, Word, port, signal};
use ukc_rootfs::path;

use super::{Lower, StageState};
use crate::graph::Op;

impl Lower<'_> {
    /// Lowers one instruction of the stage `index`. Everything in it sees the state before it.
    pub(super) fn instruction(&mut self, state: &mut StageState, index: usize, instruction: &Instruction, escape: char) {
        let span = instruction.span;
        match &instruction.kind {
            InstructionKind::From => {}
            InstructionKind::Arg(items) => self.arg(state, items, escape),
            InstructionKind::Env(pairs) => {
                let pairs = self.pairs(state, pairs, escape, "ENV");
                for (name, value) in &pairs {
                    state.scope.variables.set(name, value);
                    state.config.set_env(name, value);
                }
                self.add_history(state, format!("ENV {}", join_pairs(&pairs)), true);
            }
            InstructionKind::Label(pairs) => {
                let pairs = self.pairs(state, pairs, escape, "LABEL");
                self.add_history(state, format!("LABEL {}", join_pairs(&pairs)), true);
                state.config.labels.extend(pairs);
            }
            InstructionKind::Copy(args) => self.copy(state, index, instruction, args, false, escape),
            InstructionKind::Add(args) => self.copy(state, index, instruction, args, true, escape),
            InstructionKind::Run(args) => self.run(state, index, instruction, args, escape),
            InstructionKind::Cmd(command) => {
                let argv = self.argv(state, command);
                self.add_history(state, format!("CMD {}", go_list(&argv)), true);
                state.config.cmd = Some(argv);
                state.spans.cmd = Some(span);
                state.has_cmd = true;
            }
            InstructionKind::Entrypoint(command) => {
                let argv = self.argv(state, command);
                self.add_history(state, format!("ENTRYPOINT {}", go_list(&argv)), true);
                state.config.entrypoint = Some(argv);
                state.spans.entrypoint = Some(span);
                if !state.has_cmd {
                    state.config.cmd = None;
                    state.spans.cmd = None;
                }
            }
            InstructionKind::Workdir(word) => self.workdir(state, word, escape),
            InstructionKind::User(word) => {
                let Some(user) = self.expand(state, word, escape) else { return };
                self.add_history(state, format!("USER {user}"), true);
                state.config.user = user;
                state.spans.user = Some(word.span);
            }
            InstructionKind::Expose(words) => self.expose(state, words, escape),
            InstructionKind::Volume(words) => {
                let mut paths = vec![];
                for word in words {
                    match self.expand(state, word, escape) {
                        Some(path) if path.is_empty() => {
                            self.problems.push(Diagnostic::error("empty-volume", "the path of a VOLUME cannot be empty").at(word.span, ""));
                        }
                        Some(path) => paths.push(path),
                        None => {}
                    }
                }
                self.add_history(state, format!("VOLUME [{}]", paths.join(" ")), true);
                let absolute = |p: String| String::from_utf8_lossy(&path::absolute(b"/", p.as_bytes())).into_owned();
                state.config.volumes.extend(paths.into_iter().map(absolute));
            }
            InstructionKind::StopSignal(word) => {
                let Some(text) = self.expand(state, word, escape) else { return };
                if let Err(message) = signal::parse(&text) {
                    self.problems.push(Diagnostic::error("invalid-signal", message).at(word.span, ""));
                }
                self.add_history(state, format!("STOPSIGNAL {text}"), true);
                state.config.stop_signal = Some(text);
            }
            InstructionKind::Shell(words) => {
                let shell: Vec<String> = words.iter().map(|w| w.value.clone()).collect();
                self.add_history(state, format!("SHELL [{}]", shell.join(" ")), true);
                state.config.shell = Some(shell);
            }
            InstructionKind::Healthcheck(check) => {
                let check = healthcheck(check);
                self.add_history(state, format!("HEALTHCHECK {}", go_list(&check.test)), true);
                state.config.healthcheck = Some(check);
            }
            InstructionKind::Onbuild(onbuild) => {
                self.add_history(state, format!("ONBUILD {}", onbuild.trigger.value), true);
                state.config.on_build.push(onbuild.trigger.value.clone());
            }
            InstructionKind::Maintainer(word) => {
                state.config.author = Some(word.value.clone());
                self.add_history(state, format!("MAINTAINER {}", word.value), true);
            }
        }
    }

    /// ARG: `--build-arg` wins, then the default, then the global value (for an ARG without a default).
    fn arg(&mut self, state: &mut StageState, items: &[ArgItem], escape: char) {
        let mut shown = vec![];
        for item in items {
            let Some(name) = self.expand(state, &item.name, escape) else { continue };
            let default = match &item.default {
                Some(word) => match self.expand(state, word, escape) {
                    Some(text) => Some(text),
                    None => continue,
                },
                None => self.globals.get(&name).map(str::to_owned),
            };
            let value = self.options.build_arg(&name).map(str::to_owned).or(default);
            shown.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            if let Some(value) = value {
                state.scope.variables.set(&name, &value);
            }
            state.scope.declared.insert(name);
        }
        self.add_history(state, format!("ARG {}", shown.join(" ")), true);
    }

    fn pairs(&mut self, state: &StageState, pairs: &[KeyValue], escape: char, what: &str) -> Vec<(String, String)> {
        let mut out = vec![];
        for pair in pairs {
            let (key, value) = (self.expand(state, &pair.key, escape), self.expand(state, &pair.value, escape));
            let (Some(key), Some(value)) = (key, value) else { continue };
            if key.is_empty() {
                let message = format!("`{}` expands to nothing, and a name of {what} cannot be empty", pair.key.value);
                self.problems.push(Diagnostic::error("empty-name", message).at(pair.key.span, ""));
                continue;
            }
            out.push((key, value));
        }
        out
    }

    fn argv(&self, state: &StageState, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.iter().map(|w| w.value.clone()).collect(),
            Command::Shell(text) if text.value.is_empty() => vec![],
            Command::Shell(text) => {
                let mut argv = state.config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
                argv.push(text.value.clone());
                argv
            }
        }
    }

    fn workdir(&mut self, state: &mut StageState, word: &Word, escape: char) {
        let Some(text) = self.expand(state, word, escape) else { return };
        if text.is_empty() {
            let message = format!("`{}` expands to nothing, and WORKDIR needs a path", word.value);
            self.problems.push(Diagnostic::error("empty-workdir", message).at(word.span, ""));
            return;
        }
        let dir = String::from_utf8_lossy(&path::absolute(state.config.working_dir.as_bytes(), text.as_bytes())).into_owned();
        let origin = self.origin(word.span);
        let op = Op::Workdir { base: state.step, path: dir.clone(), user: state.config.user.clone(), origin };
        state.step = self.graph.add(op, word.span);
        self.add_history(state, format!("WORKDIR {dir}"), false);
        state.config.working_dir = dir;
        state.spans.working_dir = Some(word.span);
    }

    fn expose(&mut self, state: &mut StageState, words: &[Word], escape: char) {
        let mut keys = vec![];
        for word in words {
            let Some(expansion) = self.expansion(state, word, escape) else { continue };
            for text in &expansion.words {
                match port::parse(text) {
                    Ok(ports) => keys.extend(ports.keys()),
                    Err(message) => self.problems.push(Diagnostic::error("invalid-port", message).at(word.span, "")),
                }
            }
        }
        self.add_history(state, format!("EXPOSE [{}]", keys.join(" ")), true);
        state.config.exposed_ports.extend(keys);
    }
}

fn join_pairs(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ")
}

/// Go's `%q` of a list, as BuildKit writes it into the history: `["a" "b"]`.
fn go_list(argv: &[String]) -> String {
    format!("[{}]", argv.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(" "))
}

/// Returns the diagnostic of a user or group that the tree does not have.
pub(crate) fn user_problem(error: &ukc_rootfs::UserError, span: Span) -> Diagnostic {
    use ukc_rootfs::UserError;
    let diagnostic = Diagnostic::error(
        match error {
            UserError::UnknownUser { .. } => "unknown-user",
            UserError::UnknownGroup { .. } => "unknown-group",
            UserError::BadId(_) => "invalid-chown",
        },
        error.to_string(),
    )
    .at(span, "");
    match error {
        UserError::UnknownUser { name, missing_file, known } | UserError::UnknownGroup { name, missing_file, known } => {
            match suggest::closest(name, known.iter().map(String::as_str)) {
                Some(close) => diagnostic.help(format!("did you mean `{close}`?")),
                None if *missing_file => diagnostic.help("the image has no such file: use a numeric id"),
                None => diagnostic.help("create it in the base image, or use a numeric id"),
            }
        }
        UserError::BadId(_) => diagnostic,
    }
}

fn healthcheck(check: &Healthcheck) -> ukc_rootfs::Healthcheck {
    let Healthcheck::Cmd { command, interval, timeout, start_period, start_interval, retries } = check else {
        return ukc_rootfs::Healthcheck { test: vec!["NONE".into()], ..Default::default() };
    };
    let test = match command {
        Command::Exec(words) => std::iter::once("CMD".to_owned()).chain(words.iter().map(|w| w.value.clone())).collect(),
        // The image's shell is added when the check is run (Docker image-spec, "Healthcheck").
        Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.value.clone()],
    };
    ukc_rootfs::Healthcheck {
        test,
        interval: interval.unwrap_or_default(),
        timeout: timeout.unwrap_or_default(),
        start_period: start_period.unwrap_or_default(),
        start_interval: start_interval.unwrap_or_default(),
        retries: retries.unwrap_or_default(),
    }
}
