//! Answers to 401: a name and password, or a token; learned once for each host and repository.

use std::time::Instant;

use base64::Engine as _;
use http_auth::ChallengeParser;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};

use super::host::{Host, Known};
use super::token::Wish;
use super::{Access, RegistryClient, Target};
use crate::error::Login;
use crate::http::{Call, Trust, status_error};
use crate::login::Verified;
use crate::{Credential, Error, Result};

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// A bearer token and how long it may be used.
pub(crate) struct Token {
    pub(crate) value: HeaderValue,
    pub(crate) login: Login,
    pub(crate) until: Instant,
}

/// What goes into a request.
#[derive(Debug, Clone)]
pub(crate) struct Authorization {
    value: Option<HeaderValue>,
    pub(crate) login: Login,
}

impl Authorization {
    const NONE: Self = Self { value: None, login: Login::Anonymous };

    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        match &self.value {
            Some(value) => headers.insert(AUTHORIZATION, value.clone()),
            None => headers.remove(AUTHORIZATION),
        };
    }
}

impl Challenge {
    /// The challenge of an answer that we can meet; Bearer before Basic.
    pub(crate) fn find(headers: &HeaderMap) -> Option<Self> {
        let texts: Vec<&str> = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok()).collect();
        let mut basic = None;
        for challenge in texts.iter().flat_map(|text| ChallengeParser::new(text)).flatten() {
            let parameter = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                return Some(Self::Bearer { realm, service: parameter("service") });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            }
        }
        basic
    }
}

/// One request's view of a host's authorization.
pub(crate) struct Session<'a> {
    pub(crate) client: &'a RegistryClient,
    pub(crate) host: &'a Host,
    pub(crate) target: &'a Target<'a>,
    pub(crate) doing: &'a str,
}

impl Session<'_> {
    /// What the host is known to want already.
    pub(crate) async fn known(&self) -> Result<Authorization> {
        let mut known = self.host.known.lock().await;
        match known.challenge.clone() {
            Some(challenge) => self.meet(&mut known, &challenge).await,
            None => Ok(Authorization::NONE),
        }
    }

    /// Meets the challenge of a 401; `None` when there is nothing new to try.
    pub(crate) async fn answer(&self, headers: &HeaderMap, sent: &Authorization) -> Result<Option<Authorization>> {
        let Some(challenge) = Challenge::find(headers) else { return Ok(None) };
        let mut known = self.host.known.lock().await;
        let scopes = self.scopes();
        // A token that was refused is no good any more; unless another request has brought a new one since.
        if known.tokens.get(&scopes).is_some_and(|token| Some(&token.value) == sent.value.as_ref()) {
            known.tokens.remove(&scopes);
        }
        let found = self.meet(&mut known, &challenge).await?;
        known.challenge = Some(challenge);
        Ok(Some(found).filter(|found| found.value.is_some() && found.value != sent.value))
    }

    async fn meet(&self, known: &mut Known, challenge: &Challenge) -> Result<Authorization> {
        let Challenge::Bearer { realm, service } = challenge else {
            return match self.credential().await? {
                Some(credential) => basic(&credential, self.target.registry),
                None => Ok(Authorization::NONE),
            };
        };
        let scopes = self.scopes();
        if let Some(token) = known.token(&scopes) {
            return Ok(Authorization { value: Some(token.value.clone()), login: token.login.clone() });
        }
        let wish = Wish { realm, service: service.as_deref(), scopes: &scopes, doing: self.doing };
        let (token, _) = wish.fetch(self.client, self.host, self.credential().await?).await?;
        let found = Authorization { value: Some(token.value.clone()), login: token.login.clone() };
        known.tokens.insert(scopes, token);
        Ok(found)
    }

    async fn credential(&self) -> Result<Option<Credential>> {
        self.client.0.credentials.lookup(self.target.registry, self.target.repository).await
    }

    fn scopes(&self) -> String {
        let repository = self.target.repository;
        match self.target.access {
            Access::Pull => format!("repository:{repository}:pull"),
            Access::Push => format!("repository:{repository}:pull,push"),
            Access::Mount(from) => format!("repository:{repository}:pull,push repository:{from}:pull"),
        }
    }
}

pub(crate) fn basic(credential: &Credential, registry: &str) -> Result<Authorization> {
    let text = match credential {
        Credential::Password { username, password } => {
            let pair = format!("{username}:{password}");
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        }
        Credential::RegistryToken(token) => format!("Bearer {token}"),
        Credential::IdentityToken(_) => {
            let reason = "it is an identity token, but the registry wants a name and a password";
            return Err(Error::Credentials { host: registry.into(), reason: reason.into() });
        }
    };
    Ok(Authorization { value: Some(secret(&text, registry)?), login: Login::Sent })
}

pub(crate) fn secret(text: &str, host: &str) -> Result<HeaderValue> {
    let wrong = |_| Error::Credentials { host: host.into(), reason: "it does not fit into a header".into() };
    let mut value = HeaderValue::from_str(text).map_err(wrong)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Tries a credential: `/v2/` must answer 200 with it.
pub(crate) async fn verify_login(client: &RegistryClient, registry: &str, credential: &Credential) -> Result<Verified> {
    let doing = format!("log in to `{registry}`");
    let host = client.host(registry);
    let base = host.base(&client.0.http).await;
    let url: Url = format!("{base}/v2/").parse().map_err(|_| Error::invalid(&doing, "its name makes no URL"))?;
    let mut call = Call {
        doing: doing.clone(),
        method: Method::GET,
        url,
        headers: HeaderMap::new(),
        body: None,
        trust: Trust::Registry,
    };
    let reply = client.0.http.send(&call).await?;
    if reply.status().is_success() {
        return Ok(Verified { keep: credential.clone(), was_asked: false });
    }
    let challenge =
        Challenge::find(reply.headers()).filter(|_| reply.status() == StatusCode::UNAUTHORIZED && !reply.crossed);
    let Some(challenge) = challenge else { return Err(status_error(&doing, reply).await) };
    let (authorization, identity) = match &challenge {
        Challenge::Basic => (basic(credential, registry)?, None),
        Challenge::Bearer { realm, service } => {
            let wish = Wish { realm, service: service.as_deref(), scopes: "", doing: &doing };
            let (token, identity) = wish.fetch(client, &host, Some(credential.clone())).await?;
            (Authorization { value: Some(token.value), login: token.login }, identity)
        }
    };
    authorization.apply(&mut call.headers);
    let reply = client.0.http.send(&call).await?;
    let reply = super::refused(&doing, reply, &authorization).await?;
    if !reply.status().is_success() {
        return Err(status_error(&doing, reply).await);
    }
    if let Login::Withheld { realm } = authorization.login {
        let reason = format!("its token realm `{realm}` is not a host they are meant for");
        return Err(Error::Credentials { host: registry.into(), reason });
    }
    let keep = identity.filter(|t| !t.is_empty()).map_or_else(|| credential.clone(), Credential::IdentityToken);
    Ok(Verified { keep, was_asked: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(values: &[&str]) -> Option<Challenge> {
        Challenge::find(&HeaderMap::from_iter(values.iter().map(|v| (WWW_AUTHENTICATE, v.parse().unwrap()))))
    }

    #[test]
    fn challenges_are_read_and_bearer_wins() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) })
        };
        assert_eq!(found(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(
            found(&["bearer REALM=\"https://a/t\",service=\"s\",scope=\"repository:a:pull,push\""]),
            bearer("https://a/t", Some("s"))
        );
        assert_eq!(found(&["Basic realm=\"x\", Bearer realm=\"https://a/t\""]), bearer("https://a/t", None));
        assert_eq!(found(&["Basic realm=\"x\"", "Bearer realm=\"https://a/t\""]), bearer("https://a/t", None));
        assert_eq!(found(&["Negotiate"]), None);
        assert_eq!(found(&["Bearer service=\"no realm\""]), None);
        assert_eq!(found(&[]), None);
    }
}
