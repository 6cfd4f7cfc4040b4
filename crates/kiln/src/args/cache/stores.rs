//! Stores of objects as they are typed, and what the environment adds to that.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use kiln_engine::{ActionsOptions, AwsKeys, AzureOptions, ObjectOptions, S3Options, Secret, StoreLayout};

use crate::args::Environment;
use crate::args::output::Attributes;
use crate::args::space::duration;
use crate::args::value::Wrong;

/// The types of caches that are stores of objects.
pub(super) const STORES: [&str; 3] = ["s3", "azblob", "gha"];

/// Attributes whose values are shown to nobody.
pub(crate) const SECRETS: [&str; 4] = ["secret_access_key", "session_token", "token", "ghtoken"];

/// Variables that say where credentials of Amazon's come from when no keys are given.
const AWS_IDENTITY: [&str; 9] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_ENDPOINT_URL_STS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_METADATA_ENDPOINT",
    "AWS_IMDSV1_FALLBACK",
];

/// The same for Azure's.
const AZURE_IDENTITY: [&str; 7] = [
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
    "IDENTITY_ENDPOINT",
    "MSI_ENDPOINT",
];

/// Attributes that a type of store has.
pub(super) fn known(kind: &str) -> &'static [&'static str] {
    match kind {
        "s3" => &[
            "bucket",
            "region",
            "prefix",
            "blobs_prefix",
            "manifests_prefix",
            "name",
            "endpoint_url",
            "use_path_style",
            "access_key_id",
            "secret_access_key",
            "session_token",
            "touch_refresh",
            "upload_parallelism",
            "retry_mode",
            "retry_max_attempts",
            "disable_accept_encoding",
        ],
        "azblob" => &[
            "account_url",
            "account_name",
            "container",
            "prefix",
            "blobs_prefix",
            "manifests_prefix",
            "name",
            "secret_access_key",
        ],
        _ => &["url", "url_v2", "token", "scope", "timeout", "version", "repository", "ghtoken"],
    }
}

/// Takes the attributes of a store.
pub(super) fn options(
    kind: &str,
    attributes: &mut Attributes,
    environment: &Environment,
) -> Result<ObjectOptions, Wrong> {
    Ok(match kind {
        "s3" => ObjectOptions::S3(Box::new(s3(attributes, environment)?)),
        "azblob" => ObjectOptions::Azure(Box::new(azure(attributes, environment)?)),
        _ => ObjectOptions::Actions(Box::new(actions(attributes, environment)?)),
    })
}

fn s3(attributes: &mut Attributes, environment: &Environment) -> Result<S3Options, Wrong> {
    let or = |value: Option<String>, variables: &[&str]| {
        value.or_else(|| variables.iter().find_map(|name| environment.text(name)).map(str::to_owned))
    };
    let bucket = or(attributes.filled("bucket"), &["AWS_BUCKET"]);
    let bucket = bucket.ok_or_else(|| Wrong("`type=s3` needs `bucket=NAME`, or `AWS_BUCKET` to be set".into()))?;
    let region = or(attributes.filled("region"), &["AWS_REGION", "AWS_DEFAULT_REGION"]);
    let region = region.ok_or_else(|| Wrong("`type=s3` needs `region=REGION`, or `AWS_REGION` to be set".into()))?;
    let touch_refresh = match attributes.take("touch_refresh") {
        Some(text) => span("touch_refresh", &text)?,
        None => Duration::from_secs(24 * 60 * 60),
    };
    if let Some(mode) = attributes.take("retry_mode").filter(|mode| mode != "standard" && mode != "adaptive") {
        return Err(Wrong(format!("`retry_mode={mode}`: expected `standard` or `adaptive`")));
    }
    // No answer is asked for compressed, so that there is nothing to disable.
    attributes.flag("disable_accept_encoding")?;
    let parallelism = number(attributes, "upload_parallelism")?;
    Ok(S3Options {
        bucket,
        region,
        endpoint: or(attributes.filled("endpoint_url"), &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
        use_path_style: attributes.flag("use_path_style")?.unwrap_or(false),
        layout: layout(attributes, ("blobs/", "manifests/"), String::new()),
        touch_refresh,
        upload_parallelism: parallelism.unwrap_or(const { NonZero::new(4).unwrap() }),
        attempts: number(attributes, "retry_max_attempts")?.map(|attempts| {
            NonZero::new(u32::try_from(attempts.get()).unwrap_or(u32::MAX)).unwrap_or(NonZero::<u32>::MIN)
        }),
        keys: keys(attributes, environment)?,
        environment: variables(&AWS_IDENTITY, environment),
    })
}

/// What was typed goes before variables, and those before a file. Who lends the machine an identity is asked last.
fn keys(attributes: &mut Attributes, environment: &Environment) -> Result<Option<AwsKeys>, Wrong> {
    let id = attributes.filled("access_key_id");
    let secret = attributes.filled("secret_access_key");
    let token = attributes.filled("session_token");
    match (id, secret) {
        (Some(id), Some(secret)) => return Ok(Some(lent(id, secret, token))),
        (None, None) => {}
        _ => return Err(Wrong("`access_key_id` and `secret_access_key` go together".into())),
    }
    let text = |name: &str| environment.text(name).map(str::to_owned);
    if let (Some(id), Some(secret)) = (text("AWS_ACCESS_KEY_ID"), text("AWS_SECRET_ACCESS_KEY")) {
        return Ok(Some(lent(id, secret, text("AWS_SESSION_TOKEN"))));
    }
    if text("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() {
        return Ok(None);
    }
    let file = text("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
    let file = file.or_else(|| Some(PathBuf::from(text("HOME")?).join(".aws/credentials")));
    let content = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    Ok(profile(&content, &text("AWS_PROFILE").unwrap_or_else(|| "default".into())))
}

fn lent(id: String, secret: String, token: Option<String>) -> AwsKeys {
    AwsKeys { id, secret: Secret::new(secret), token: token.map(Secret::new) }
}

/// The keys of a section of Amazon's file of credentials.
fn profile(content: &str, name: &str) -> Option<AwsKeys> {
    let mut lines = content.lines().map(str::trim);
    lines.find(|line| line.strip_prefix('[').and_then(|line| line.strip_suffix(']')).map(str::trim) == Some(name))?;
    let section = lines.take_while(|line| !line.starts_with('[')).filter_map(|line| line.split_once('='));
    let pairs: BTreeMap<&str, &str> = section.map(|(key, value)| (key.trim(), value.trim())).collect();
    let text = |key: &str| pairs.get(key).map(|value| (*value).to_owned());
    Some(lent(text("aws_access_key_id")?, text("aws_secret_access_key")?, text("aws_session_token")))
}

fn azure(attributes: &mut Attributes, environment: &Environment) -> Result<AzureOptions, Wrong> {
    let mut or =
        |key: &str, variable: &str| attributes.filled(key).or_else(|| environment.text(variable).map(str::to_owned));
    let account_url = or("account_url", "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL").ok_or_else(|| {
        Wrong("`type=azblob` needs `account_url=URL`, or `BUILDKIT_AZURE_STORAGE_ACCOUNT_URL` to be set".into())
    })?;
    let account = or("account_name", "BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME").or_else(|| account_of(&account_url));
    let account = account.ok_or_else(|| Wrong("`type=azblob` needs `account_name=NAME`: its URL has none".into()))?;
    let container = or("container", "BUILDKIT_AZURE_STORAGE_CONTAINER").unwrap_or_else(|| "buildkit-cache".into());
    let prefix = environment.text("BUILDKIT_AZURE_STORAGE_PREFIX").unwrap_or_default().to_owned();
    Ok(AzureOptions {
        account_url,
        account,
        container,
        layout: layout(attributes, ("blobs", "manifests"), prefix),
        key: attributes.filled("secret_access_key").map(Secret::new),
        environment: variables(&AZURE_IDENTITY, environment),
    })
}

/// The account is the first part of the host's name.
fn account_of(url: &str) -> Option<String> {
    let host = url.split_once("://")?.1.split(['/', ':']).next()?;
    host.split('.').next().filter(|account| !account.is_empty()).map(str::to_owned)
}

fn actions(attributes: &mut Attributes, environment: &Environment) -> Result<ActionsOptions, Wrong> {
    let text = |name: &str| environment.text(name).map(str::to_owned);
    let version = attributes.take("version");
    let old = attributes.filled("url").or_else(|| text("ACTIONS_CACHE_URL"));
    let url = attributes.filled("url_v2").or_else(|| text("ACTIONS_RESULTS_URL"));
    // Clients that know no `url_v2` say both with one word.
    let url = url.or_else(|| old.clone().filter(|url| url.contains("results-receiver.")));
    if version.as_deref() == Some("1") || (url.is_none() && old.is_some()) {
        return Err(Wrong(
            "`type=gha` speaks the second version of the service only: give `url_v2=URL`, or set `ACTIONS_RESULTS_URL`"
                .into(),
        ));
    }
    // Entries are looked up one by one, so that there is no need to list them.
    attributes.take("repository");
    attributes.take("ghtoken");
    let timeout = match attributes.take("timeout") {
        Some(text) => span("timeout", &text)?,
        None => Duration::from_secs(600),
    };
    Ok(ActionsOptions {
        url,
        token: attributes.filled("token").or_else(|| text("ACTIONS_RUNTIME_TOKEN")).map(Secret::new),
        scope: attributes.filled("scope").unwrap_or_else(|| "buildkit".into()),
        timeout,
    })
}

fn layout(attributes: &mut Attributes, (blobs, manifests): (&str, &str), prefix: String) -> StoreLayout {
    let names = attributes.filled("name").unwrap_or_else(|| "buildkit".into());
    StoreLayout {
        prefix: attributes.take("prefix").unwrap_or(prefix),
        blobs_prefix: attributes.take("blobs_prefix").unwrap_or_else(|| blobs.into()),
        manifests_prefix: attributes.take("manifests_prefix").unwrap_or_else(|| manifests.into()),
        names: names.split(';').map(str::to_owned).collect(),
    }
}

fn variables(names: &[&str], environment: &Environment) -> BTreeMap<String, Secret> {
    names.iter().filter_map(|name| Some(((*name).to_owned(), Secret::new(environment.text(name)?)))).collect()
}

fn span(key: &str, text: &str) -> Result<Duration, Wrong> {
    duration(text).ok_or_else(|| Wrong(format!("`{key}={text}`: expected a duration, as in `{key}=1h30m`")))
}

fn number(attributes: &mut Attributes, key: &str) -> Result<Option<NonZero<usize>>, Wrong> {
    let Some(text) = attributes.take(key) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Wrong(format!("`{key}={text}`: expected a number above 0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(text: &str, environment: [(&str, &str); N]) -> Result<ObjectOptions, Wrong> {
        let mut attributes = Attributes::read(text).unwrap();
        let kind = attributes.take("type").unwrap();
        options(&kind, &mut attributes, &Environment::from(environment))
    }

    #[test]
    fn a_bucket_has_buildkits_defaults() {
        let Ok(ObjectOptions::S3(options)) = read("type=s3,bucket=b,region=r,access_key_id=i,secret_access_key=s", [])
        else {
            panic!("a bucket");
        };
        let layout = &options.layout;
        assert_eq!((layout.prefix.as_str(), layout.blobs_prefix.as_str()), ("", "blobs/"));
        assert_eq!(
            (layout.manifests_prefix.as_str(), layout.names.as_slice()),
            ("manifests/", &["buildkit".into()][..])
        );
        assert_eq!((options.touch_refresh.as_secs(), options.upload_parallelism.get()), (86_400, 4));
        assert_eq!(options.keys, Some(lent("i".into(), "s".into(), None)));
    }

    #[test]
    fn what_is_typed_goes_before_variables() {
        let environment = [
            ("AWS_BUCKET", "eb"),
            ("AWS_REGION", "er"),
            ("AWS_ACCESS_KEY_ID", "ei"),
            ("AWS_SECRET_ACCESS_KEY", "es"),
            ("AWS_SESSION_TOKEN", "et"),
        ];
        let Ok(ObjectOptions::S3(options)) = read("type=s3,region=r,name=a;b,touch_refresh=1h", environment) else {
            panic!("a bucket");
        };
        assert_eq!((options.bucket.as_str(), options.region.as_str()), ("eb", "r"));
        assert_eq!(options.keys, Some(lent("ei".into(), "es".into(), Some("et".into()))));
        assert_eq!((options.layout.names.len(), options.touch_refresh.as_secs()), (2, 3600));
    }

    #[test]
    fn an_identity_is_left_to_those_who_lend_it() {
        let environment = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn"), ("AWS_PROFILE", "x")];
        let Ok(ObjectOptions::S3(options)) = read("type=s3,bucket=b,region=r", environment) else { panic!("a bucket") };
        assert_eq!((options.keys, options.environment.len()), (None, 2));
    }

    #[test]
    fn keys_are_found_in_their_profile() {
        let content = "[default]\naws_access_key_id = a\naws_secret_access_key=b\n\n[other]\naws_access_key_id=c\n\
            aws_secret_access_key = d=\naws_session_token = e\n";
        assert_eq!(profile(content, "default"), Some(lent("a".into(), "b".into(), None)));
        assert_eq!(profile(content, "other"), Some(lent("c".into(), "d=".into(), Some("e".into()))));
        assert_eq!(profile(content, "nobody"), None);
    }

    #[test]
    fn an_account_is_named_by_its_url() {
        let Ok(ObjectOptions::Azure(options)) = read("type=azblob,account_url=https://me.blob.core.windows.net", [])
        else {
            panic!("a container");
        };
        assert_eq!((options.account.as_str(), options.container.as_str()), ("me", "buildkit-cache"));
        assert_eq!((options.layout.blobs_prefix.as_str(), options.key), ("blobs", None));
    }

    #[test]
    fn a_workflow_finds_its_cache_by_itself() {
        let environment = [("ACTIONS_RESULTS_URL", "https://r/"), ("ACTIONS_RUNTIME_TOKEN", "t")];
        let Ok(ObjectOptions::Actions(options)) = read("type=gha,scope=s,timeout=1m", environment) else {
            panic!("the cache of actions");
        };
        assert_eq!((options.url.as_deref(), options.scope.as_str()), (Some("https://r/"), "s"));
        assert_eq!((options.token, options.timeout.as_secs()), (Some(Secret::new("t")), 60));
    }

    #[test]
    fn what_is_no_store_says_why() {
        for (text, message) in [
            ("type=s3,region=r", "`type=s3` needs `bucket=NAME`, or `AWS_BUCKET` to be set"),
            ("type=s3,bucket=b", "`type=s3` needs `region=REGION`, or `AWS_REGION` to be set"),
            ("type=s3,bucket=b,region=r,access_key_id=i", "`access_key_id` and `secret_access_key` go together"),
            ("type=s3,bucket=b,region=r,upload_parallelism=0", "`upload_parallelism=0`: expected a number above 0"),
            ("type=s3,bucket=b,region=r,retry_mode=x", "`retry_mode=x`: expected `standard` or `adaptive`"),
            (
                "type=s3,bucket=b,region=r,touch_refresh=x",
                "`touch_refresh=x`: expected a duration, as in `touch_refresh=1h30m`",
            ),
            ("type=azblob", "`type=azblob` needs `account_url=URL`, or `BUILDKIT_AZURE_STORAGE_ACCOUNT_URL` to be set"),
            (
                "type=gha,url=https://old/",
                "`type=gha` speaks the second version of the service only: give `url_v2=URL`, or set \
                 `ACTIONS_RESULTS_URL`",
            ),
        ] {
            assert_eq!(read(text, []).unwrap_err().0, message, "{text}");
        }
    }
}
