//! RUN → [`RunOp`].

use ukc_diagnostics::{Diagnostic, Span};
use ukc_dockerfile::{Instruction, Network, RunArgs, Script, Security, mount};
use ukc_rootfs::path;

use super::{Lower, PREDEFINED, StageState};
use crate::graph::{MountKind, MountOp, MountSource, Op, RunOp};
use crate::run::{self, CacheUse, Process, SCRIPT_DIR};

/// BuildKit's (`executor/oci`, `defaultHostname`).
const HOSTNAME: &str = "buildkitsandbox";

impl Lower<'_> {
    pub(super) fn run(&mut self, state: &mut StageState, index: usize, instruction: &Instruction, args: &RunArgs, escape: char) {
        let before = self.problems.len();
        let shell = || state.config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
        let (argv, script) = match args.script() {
            Script::Exec(argv) => (argv, None),
            Script::Shell(text) => ([shell(), vec![text]].concat(), None),
            Script::File { name, text } => (vec![format!("{SCRIPT_DIR}/{name}")], Some(run::Script { name, text })),
        };
        if argv.first().is_none_or(String::is_empty) {
            self.problems.push(Diagnostic::error("empty-command", "this RUN names no program").at(instruction.span, ""));
        }
        let mounts: Vec<MountOp> = args.mounts.iter().filter_map(|word| self.mount(state, index, word, escape)).collect();
        let network = self.network(args, instruction.span);
        let security = args.security.as_ref().map_or(Security::Sandbox, |s| s.value);
        if security == Security::Insecure && !self.options.run.allow_insecure {
            self.not_allowed("security=insecure", "security.insecure", args.security.as_ref().map_or(instruction.span, |s| s.span));
        }
        if let Some(device) = args.devices.first() {
            let message = "devices cannot be given to a RUN yet";
            self.problems.push(Diagnostic::error("unsupported-device", message).at(device.span, ""));
        }
        let env: Vec<(String, String)> = state.scope.variables.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let is_proxy = |name: &str| name.to_ascii_uppercase().ends_with("_PROXY");
        let hidden_env = PREDEFINED
            .iter()
            .filter(|name| is_proxy(name) && !env.iter().any(|(n, _)| n == *name))
            .filter_map(|name| Some(((*name).to_owned(), self.options.build_arg(name)?.to_owned())))
            .collect();
        let arguments: Vec<String> =
            env.iter().filter(|(n, v)| state.config.env_var(n) != Some(v)).map(|(n, v)| format!("{n}={v}")).collect();
        let shown = argv.join(" ");
        let count = if arguments.is_empty() { String::new() } else { format!("|{} {} ", arguments.len(), arguments.join(" ")) };
        let created_by = match &script {
            Some(script) => format!("RUN {count}<<{} # ukc", script.name),
            None => format!("RUN {count}{shown} # ukc"),
        };
        let process = Process {
            argv,
            script,
            env,
            hidden_env,
            cwd: if state.config.working_dir.is_empty() { "/".into() } else { state.config.working_dir.clone() },
            hostname: self.options.build_arg("BUILDKIT_SANDBOX_HOSTNAME").unwrap_or(HOSTNAME).to_owned(),
        };
        if self.problems[before..].iter().any(Diagnostic::is_error) {
            self.unknown(state, instruction.name(), instruction.span);
            return;
        }
        let origin = self.origin(instruction.span);
        let op = RunOp {
            base: state.step,
            process,
            user: state.config.user.clone(),
            user_span: state.spans.user,
            mounts,
            network,
            security,
            may_use_cache: self.may_use_cache(index),
            origin,
        };
        state.step = self.graph.add(Op::Run(Box::new(op)), instruction.span);
        self.add_history(state, created_by, false);
    }

    fn may_use_cache(&self, stage: usize) -> bool {
        match &self.options.run.cache {
            CacheUse::All => true,
            CacheUse::Nothing => false,
            CacheUse::NotOf(stages) => {
                let name = self.parsed.stages[stage].name.as_ref().map(|n| n.value.as_str());
                !stages.contains(&stage.to_string()) && name.is_none_or(|n| !stages.iter().any(|s| s.eq_ignore_ascii_case(n)))
            }
        }
    }

    fn network(&mut self, args: &RunArgs, span: Span) -> Network {
        let given = args.network.as_ref();
        let network = given.map(|n| n.value).or(self.options.run.network).unwrap_or(Network::Default);
        if network == Network::Host && !self.options.run.allow_host_network {
            self.not_allowed("network=host", "network.host", given.map_or(span, |n| n.span));
        }
        network
    }

    fn not_allowed(&mut self, flag: &str, what: &str, span: Span) {
        let message = format!("`--{flag}` lets the step do more than usual, and that is not allowed");
        self.problems.push(
            Diagnostic::error("not-allowed", message)
                .at(span, "")
                .help(format!("if you trust this Dockerfile, build with `--allow {what}`")),
        );
    }

    /// The stages that mounts of a RUN name, for the order of lowering.
    pub(super) fn mount_stages(&self, args: &RunArgs, index: usize) -> Vec<usize> {
        let from = |word| match mount::parse(word, &mut |word| Ok(word.value.clone())).ok()?.kind {
            mount::MountKind::Bind { from, .. } | mount::MountKind::Cache { from, .. } => self.stage_by_reference(&from?, index),
            _ => None,
        };
        args.mounts.iter().filter_map(from).collect()
    }

    fn mount(&mut self, state: &StageState, index: usize, word: &ukc_dockerfile::Word, escape: char) -> Option<MountOp> {
        let parsed = mount::parse(word, &mut |word| {
            ukc_dockerfile::expand::word(word, escape, &|name| state.scope.variables.get(name).map(str::to_owned)).map(|e| e.text)
        });
        let mount = match parsed {
            Ok(mount) => mount,
            Err(problems) => {
                self.problems.extend(problems);
                return None;
            }
        };
        let span = mount.span;
        let absolute = |p: &str| String::from_utf8_lossy(&path::absolute(state.config.working_dir.as_bytes(), p.as_bytes())).into_owned();
        let target = mount.target.as_deref().map(absolute);
        let source_path = |source: Option<String>| source.unwrap_or_else(|| "/".into());
        let (target, kind) = match mount.kind {
            mount::MountKind::Bind { from, source, read_only } => {
                let source = self.mount_source(index, from.as_deref(), source_path(source), span)?;
                (target.unwrap_or_else(|| absolute(".")), MountKind::Bind { source, read_only })
            }
            mount::MountKind::Cache { id, from, source, sharing, read_only, access } => {
                let target = target.unwrap_or_else(|| absolute("."));
                let namespace = self.options.build_arg("BUILDKIT_CACHE_MOUNT_NS").unwrap_or_default();
                let id = format!("{namespace}/{}", id.unwrap_or_else(|| target.clone()));
                let seed = match from {
                    Some(from) => Some(self.mount_source(index, Some(&from), source_path(source), span)?),
                    None => None,
                };
                (target, MountKind::Cache { id, seed, sharing, read_only, access })
            }
            mount::MountKind::Tmpfs { size_bytes } => (target.unwrap_or_else(|| absolute(".")), MountKind::Tmpfs { size_bytes }),
            mount::MountKind::Secret { id, env, required, access } => {
                let is_file = env.is_none() || target.is_some();
                let target = target.unwrap_or_else(|| format!("/run/secrets/{}", id.rsplit('/').next().unwrap_or(&id)));
                (target, MountKind::Secret { id, is_file, env, required, access })
            }
            mount::MountKind::Ssh { id, required, access } => {
                let target = target.unwrap_or_else(|| "/run/buildkit/ssh_agent.0".into());
                (target, MountKind::Ssh { id: id.unwrap_or_else(|| "default".into()), required, access })
            }
        };
        if target == "/" {
            self.problems.push(Diagnostic::error("invalid-mount", "nothing can be mounted at `/`: it is the root itself").at(span, ""));
            return None;
        }
        Some(MountOp { kind, target, span })
    }

    fn mount_source(&mut self, index: usize, from: Option<&str>, path: String, span: Span) -> Option<MountSource> {
        let (step, text) = match from {
            Some(from) => {
                let source = self.copy_source(from, index, span)?;
                (source.step, source.text)
            }
            None => (self.main_context(span), "the build context".to_owned()),
        };
        Some(MountSource { step, text, path })
    }
}
