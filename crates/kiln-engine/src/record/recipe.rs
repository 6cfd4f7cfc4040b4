//! What a record knows of a build so that it can be done again. Never a secret, and no value that sounds like one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_oci::Platform;
use kiln_report::{Failure, FailureKind};
use kiln_solver::Setting;
use serde::{Deserialize, Serialize};

use super::BuildRecord;
use crate::job::Result;
use crate::request::{
    BuildRequest, Context, DockerfileSource, Entitlement, NamedContext, NetworkMode, Rewrite, Ulimit,
};

/// What was asked for, beside what else is in the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    context: Context,
    dockerfile: DockerfileSource,
    ignorefile: Option<PathBuf>,
    contexts: BTreeMap<String, NamedContext>,
    labels: BTreeMap<String, String>,
    is_platform_chosen: bool,
    network: NetworkMode,
    allowed: Vec<Entitlement>,
    extra_hosts: Vec<(String, String)>,
    shm_size: Option<u64>,
    ulimits: Vec<Ulimit>,
    hostname: Option<String>,
    source_date_epoch: Option<i64>,
    rewrite: Rewrite,
    reproducible: bool,
    is_locked: bool,
}

impl Recipe {
    /// What is to be remembered of a request; nothing when it cannot be done again: its context came from standard input,
    /// or a path of it is no text.
    pub(super) fn of(request: &BuildRequest) -> Option<Self> {
        let context = match &request.context {
            Context::Dir(path) => Context::Dir(absolute(path)?),
            Context::Remote(url) => Context::Remote(url.clone()),
            Context::Empty => Context::Empty,
            Context::Stdin => return None,
        };
        let contexts = request.contexts.iter().map(|(name, context)| Some((name.clone(), named(context)?)));
        Some(Self {
            context,
            dockerfile: dockerfile(&request.dockerfile)?,
            ignorefile: request.ignorefile.as_deref().map_or(Some(None), |path| absolute(path).map(Some))?,
            contexts: contexts.collect::<Option<_>>()?,
            labels: request.labels.clone(),
            is_platform_chosen: !request.platforms.is_empty(),
            network: request.network,
            allowed: request.allowed.clone(),
            extra_hosts: request.extra_hosts.clone(),
            shm_size: request.shm_size,
            ulimits: request.ulimits.clone(),
            hostname: request.hostname.clone(),
            source_date_epoch: request.source_date_epoch,
            rewrite: request.rewrite,
            reproducible: request.reproducible,
            is_locked: request.is_locked,
        })
    }

    /// A request that finds its contexts where they were.
    pub(crate) fn places(&self) -> BuildRequest {
        BuildRequest {
            context: self.context.clone(),
            dockerfile: self.dockerfile.clone(),
            ignorefile: self.ignorefile.clone(),
            contexts: self.contexts.clone(),
            reproducible: self.reproducible,
            ..BuildRequest::default()
        }
    }

    /// The request that does it again for some of its platforms, in this order. What the record does not hold must be given.
    pub(crate) fn request(
        &self,
        (record, platforms): (&BuildRecord, &[Platform]),
        given: &BuildRequest,
    ) -> Result<BuildRequest> {
        let mut build_args = given.build_args.clone();
        for (name, setting) in &record.options.build_args {
            match setting {
                _ if given.build_args.contains_key(name) => {}
                Setting::Shown(value) => drop(build_args.insert(name.clone(), value.clone())),
                Setting::Hidden { .. } => {
                    let message = format!("the record of the build does not hold the value of build argument `{name}`");
                    let hint = format!("give it again with `--build-arg {name}=VALUE`");
                    return Err(Failure::new(FailureKind::Usage, message).hint(hint));
                }
            }
        }
        // An image may say a little else than what it was built for: a base's variant, say.
        let built: Vec<Platform> = record.target.platform.split(',').filter_map(|text| text.parse().ok()).collect();
        let nearest = |image: &Platform| {
            built.iter().filter_map(|built| Some((image.rank(built)?, built))).min_by_key(|(rank, _)| *rank)
        };
        let asked = |image: &Platform| match built.as_slice() {
            [only] => only.clone(),
            _ => nearest(image).map_or_else(|| image.clone(), |(_, built)| built.clone()),
        };
        Ok(BuildRequest {
            context: self.context.clone(),
            dockerfile: self.dockerfile.clone(),
            ignorefile: self.ignorefile.clone(),
            contexts: self.contexts.clone(),
            labels: self.labels.clone(),
            build_args,
            target: record.target.stage.clone(),
            platforms: platforms.iter().filter(|_| self.is_platform_chosen).map(asked).collect(),
            jobs: given.jobs,
            user_ids: given.user_ids,
            ca_certs: given.ca_certs.clone(),
            accepted_leaks: given.accepted_leaks.clone(),
            network: self.network,
            allowed: self.allowed.clone(),
            extra_hosts: self.extra_hosts.clone(),
            shm_size: self.shm_size,
            ulimits: self.ulimits.clone(),
            hostname: self.hostname.clone(),
            source_date_epoch: self.source_date_epoch,
            rewrite: self.rewrite,
            reproducible: self.reproducible,
            is_locked: self.is_locked,
            ..BuildRequest::default()
        })
    }
}

fn absolute(path: &Path) -> Option<PathBuf> {
    std::path::absolute(path).ok().filter(|path| path.to_str().is_some())
}

fn dockerfile(source: &DockerfileSource) -> Option<DockerfileSource> {
    Some(match source {
        DockerfileSource::Path(path) => DockerfileSource::Path(absolute(path)?),
        DockerfileSource::Several(all) => DockerfileSource::Several(all.iter().map(dockerfile).collect::<Option<_>>()?),
        // Longer ones are not kept elsewhere in the record either.
        DockerfileSource::Text(text) if text.len() > super::LONGEST_DOCKERFILE => return None,
        other => other.clone(),
    })
}

fn named(context: &NamedContext) -> Option<NamedContext> {
    Some(match context {
        NamedContext::Dir(path) => NamedContext::Dir(absolute(path)?),
        NamedContext::OciLayout { path, reference } => {
            NamedContext::OciLayout { path: absolute(path)?, reference: reference.clone() }
        }
        other => other.clone(),
    })
}
