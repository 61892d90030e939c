//! What a FROM or `--from` names: an earlier stage, a named context, an image.

use ukc_diagnostics::{Diagnostic, Span, suggest};
use ukc_oci::{Image, OciError, Platform, Reference};
use ukc_rootfs::ImageConfig;

use super::scope::{Scope, expand_global};
use super::{Lower, StageState};
use crate::graph::{Op, StepId};
use crate::options::{ContextSource, NamedContext};

/// A step, and the configuration and history that it brings if it is an image.
pub(super) type BaseStep = (StepId, Option<ImageConfig>, Vec<ukc_oci::History>);

/// What `--from` stands for.
pub(super) struct Source {
    pub step: StepId,
    /// For messages.
    pub text: String,
}

/// Returns the diagnostic of trouble with an image or the store, at `span`.
pub(crate) fn image_problem(error: &OciError, span: Span) -> Diagnostic {
    let diagnostic = Diagnostic::error(error.name(), error.to_string()).at(span, "");
    match error.help() {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

impl Lower<'_> {
    /// Returns the stage before `before` with this name; of several the last.
    pub(super) fn stage_by_name(&self, name: &str, before: usize) -> Option<usize> {
        let lower = name.to_lowercase();
        self.parsed.stages[..before].iter().rposition(|s| s.name.as_ref().is_some_and(|n| n.value == lower))
    }

    /// As [`Lower::stage_by_name`], or by number.
    pub(super) fn stage_by_reference(&self, reference: &str, before: usize) -> Option<usize> {
        self.stage_by_name(reference, before).or_else(|| reference.parse().ok().filter(|&i: &usize| i < before))
    }

    /// Returns the named context that stands in for a whole stage because it has the stage's name.
    pub(super) fn replacement_of(&self, stage: usize) -> Option<usize> {
        let name = &self.parsed.stages[stage].name.as_ref()?.value;
        self.options.named_contexts.iter().rposition(|c| c.name == *name)
    }

    fn named_context(&self, reference: &str) -> Option<usize> {
        self.options.named_contexts.iter().rposition(|c| c.stands_for(reference))
    }

    /// Returns the state in which a stage starts.
    pub(super) fn base_of(&mut self, index: usize) -> StageState {
        let stage = &self.parsed.stages[index];
        let span = stage.base.span;
        let broken = |lower: &mut Self, diagnostic: Option<Diagnostic>| {
            lower.problems.extend(diagnostic);
            let step = lower.graph.add(Op::Unknown { base: None, what: stage.base.value.clone() }, span);
            StageState { is_broken: true, ..lower.bare(step) }
        };
        if let Some(context) = self.replacement_of(index) {
            return self.start_from_context(context, &self.options.platform.clone(), span).unwrap_or_else(|d| broken(self, Some(d)));
        }
        let escape = self.parsed.directives.escape;
        let name = match expand_global(&stage.base, escape, &self.globals) {
            Ok(expansion) => expansion.text,
            Err(diagnostic) => return broken(self, Some(diagnostic)),
        };
        let mut platform = self.options.platform.clone();
        if let Some(word) = &stage.platform {
            let text = match expand_global(word, escape, &self.globals) {
                Ok(expansion) => expansion.text,
                Err(diagnostic) => return broken(self, Some(diagnostic)),
            };
            match Platform::parse(&text) {
                Some(parsed) => platform = parsed,
                None => {
                    let diagnostic = Diagnostic::error("invalid-platform", format!("`{text}` is not a platform")).at(word.span, "");
                    return broken(self, Some(diagnostic.help("platforms look like `linux/amd64`")));
                }
            }
        }
        if name.is_empty() {
            let diagnostic =
                Diagnostic::error("empty-base", format!("`{}` expands to nothing, so there is no base image", stage.base.value));
            return broken(self, Some(diagnostic.at(span, "").help("give the ARG a default, or set it with `--build-arg`")));
        }
        if let Some(parent) = self.stage_by_name(&name, index) {
            let Some(state) = self.stages.get(&parent) else {
                self.need(parent);
                return self.base_of(index);
            };
            return StageState { has_cmd: false, spans: state.spans.clone(), ..state.clone() };
        }
        if name == "scratch" {
            return self.scratch(span);
        }
        match self.named_context(&name) {
            Some(context) => self.start_from_context(context, &platform, span).unwrap_or_else(|d| broken(self, Some(d))),
            None => match self.remote_image(&name, &platform, index, span) {
                Ok((step, config, history)) => self.start_from(step, config, history),
                Err(diagnostic) => broken(self, Some(diagnostic)),
            },
        }
    }

    /// Returns the step of an image in a registry; the same image twice is one step.
    fn remote_image(&mut self, name: &str, platform: &Platform, before: usize, span: Span) -> Result<BaseStep, Diagnostic> {
        let key = format!("image {name} {platform}");
        if let Some(known) = self.shared.get(&key) {
            return Ok(known.clone());
        }
        let found = match (&self.options.remote, name.parse::<Reference>()) {
            (_, Err(why)) => Err(Diagnostic::error("invalid-reference", why).at(span, "")),
            (None, _) => Err(Diagnostic::error("remote-image", format!("the image `{name}` cannot be pulled: this build has no network"))
                .at(span, "")
                .help(format!("give it with `--build-context {name}=oci-layout://DIR`"))),
            (Some(remote), Ok(reference)) => remote.image(&reference, platform, self.store).map_err(|error| image_problem(&error, span)),
        };
        let image = found.map_err(|diagnostic| self.suggest_stage(diagnostic, name, before))?;
        let made = self.image_step(name.to_owned(), image, span);
        self.shared.insert(key, made.clone());
        Ok(made)
    }

    /// An image that nobody has may be a stage's name with a mistake in it.
    fn suggest_stage(&self, mut diagnostic: Diagnostic, name: &str, before: usize) -> Diagnostic {
        let is_about_the_name = ["remote-image", "invalid-reference", "image-not-found", "access-denied"].contains(&diagnostic.name);
        let stages = self.parsed.stages[..before].iter().filter_map(|s| s.name.as_ref()).map(|n| n.value.as_str());
        let contexts = self.options.named_contexts.iter().map(|c| c.name.as_str());
        if let Some(close) = suggest::closest(name, stages.chain(contexts)).filter(|_| is_about_the_name) {
            diagnostic.help.insert(0, format!("did you mean `{close}`?"));
        }
        diagnostic
    }

    fn image_step(&mut self, reference: String, image: Image, span: Span) -> BaseStep {
        let origin = self.origin(span);
        let (config, history) = (image.config.clone(), image.history.clone());
        (self.graph.add(Op::Image { reference, image: Box::new(image), origin }, span), Some(config), history)
    }

    /// Returns the state of a stage that starts from a named context.
    fn start_from_context(&mut self, context: usize, platform: &Platform, span: Span) -> Result<StageState, Diagnostic> {
        let (step, config, history) = self.context_step(context, platform, span)?;
        Ok(self.start_from(step, config, history))
    }

    fn start_from(&self, step: StepId, config: Option<ImageConfig>, history: Vec<ukc_oci::History>) -> StageState {
        let mut state = self.bare(step);
        if let Some(config) = config {
            state.scope = Scope::of(&config);
            state.config = config;
            state.history = history;
        }
        state
    }

    /// Returns the step of a named context, and its configuration if it is an image.
    fn context_step(&mut self, index: usize, platform: &Platform, span: Span) -> Result<BaseStep, Diagnostic> {
        let NamedContext { name, source } = self.options.named_contexts[index].clone();
        let key = format!("{index} {platform}");
        if let Some(known) = self.shared.get(&key) {
            return Ok(known.clone());
        }
        let made = match source {
            ContextSource::Dir(_) => {
                let origin = self.origin(span);
                (self.graph.add(Op::Context { named: Some(index), name, origin }, span), None, vec![])
            }
            ContextSource::Layout(reference) => {
                let image = Image::from_layout(&reference, platform, self.store).map_err(|e| image_problem(&e, span))?;
                self.image_step(name, image, span)
            }
            ContextSource::Image(reference) => return self.remote_image(&reference.to_string(), platform, 0, span),
        };
        self.shared.insert(key, made.clone());
        Ok(made)
    }

    /// Returns the step of the build context.
    pub(super) fn main_context(&mut self, span: Span) -> StepId {
        if let Some((step, ..)) = self.shared.get("context") {
            return *step;
        }
        let origin = self.origin(span);
        let step = self.graph.add(Op::Context { named: None, name: String::new(), origin }, span);
        self.shared.insert("context".into(), (step, None, vec![]));
        step
    }

    /// Resolves `--from`.
    pub(super) fn copy_source(&mut self, reference: &str, current: usize, span: Span) -> Option<Source> {
        if let Some(stage) = self.stage_by_reference(reference, current) {
            if !self.stages.contains_key(&stage) {
                self.need(stage);
            }
            let state = &self.stages[&stage];
            return Some(Source { step: state.step, text: format!("the stage `{reference}`") });
        }
        if let Some(context) = self.named_context(reference) {
            return match self.context_step(context, &self.options.platform.clone(), span) {
                Ok((step, ..)) => Some(Source { step, text: format!("the context `{reference}`") }),
                Err(diagnostic) => {
                    self.problems.push(diagnostic);
                    None
                }
            };
        }
        // Names of this stage and later ones, and numbers, can only be meant as stages.
        let later = self.parsed.stages[current..].iter().position(|s| s.name.as_ref().is_some_and(|n| n.value == reference.to_lowercase()));
        let number: Option<usize> = reference.parse().ok();
        let diagnostic = match (later.map(|n| current + n).or(number), later) {
            (Some(stage), _) if stage == current => {
                Diagnostic::error("copy-cycle", format!("a stage cannot copy from itself, and `{reference}` is this one"))
                    .at(span, "")
                    .help("to copy inside a stage, give the files' stage a name of its own")
            }
            (Some(stage), _) if stage < self.parsed.stages.len() => {
                let from = self.parsed.stages[stage].from.span;
                Diagnostic::error("copy-cycle", format!("the stage `{reference}` comes later, and stages only copy from earlier ones"))
                    .at(span, "")
                    .at(from, "it begins here")
            }
            (Some(_), None) => Diagnostic::error("unknown-stage", format!("there is no stage {reference}"))
                .at(span, "")
                .help(format!("stages are numbered from 0, and this one is {current}")),
            _ => match self.remote_image(reference, &self.options.platform.clone(), current, span) {
                Ok((step, ..)) => return Some(Source { step, text: format!("the image `{reference}`") }),
                Err(diagnostic) => diagnostic,
            },
        };
        self.problems.push(diagnostic);
        None
    }
}
