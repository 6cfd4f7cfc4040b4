//! Answers to 401: Basic, and Bearer tokens fetched from the realm the registry names, if we trust it with our name.

use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use http_auth::ChallengeParser;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::host::{Host, Known};
use super::{Access, RegistryClient, Target};
use crate::error::Login;
use crate::http::{Call, Reply, Trust, answer_bytes, authority, host_of, refuse, status_error, words};
use crate::login::Verified;
use crate::{Credential, Error, Result, limits};

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// A bearer token and how long it may be used.
pub(crate) struct Token {
    value: HeaderValue,
    login: Login,
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

fn basic(credential: &Credential, registry: &str) -> Result<Authorization> {
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

fn secret(text: &str, host: &str) -> Result<HeaderValue> {
    let wrong = |_| Error::Credentials { host: host.into(), reason: "it does not fit into a header".into() };
    let mut value = HeaderValue::from_str(text).map_err(wrong)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A token to be fetched.
struct Wish<'a> {
    realm: &'a str,
    service: Option<&'a str>,
    scopes: &'a str,
    doing: &'a str,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    refresh_token: Option<String>,
}

impl Wish<'_> {
    /// Fetches the token, and an identity token if the server gives one.
    async fn fetch(
        &self,
        client: &RegistryClient,
        host: &Host,
        credential: Option<Credential>,
    ) -> Result<(Token, Option<String>)> {
        let realm = self.checked_realm(client, host).await?;
        if let Some(Credential::RegistryToken(token)) = &credential {
            let value = secret(&format!("Bearer {token}"), &host.authority)?;
            let until = Instant::now() + Duration::from_secs(60);
            return Ok((Token { value, login: Login::Sent, until }, None));
        }
        let trusted = may_see_credentials(&host.authority, &realm, &client.0.http.options().auth_realms);
        let (login, shown) = match credential {
            None => (Login::Anonymous, None),
            Some(credential) if trusted => (Login::Sent, Some(credential)),
            Some(_) => (Login::Withheld { realm: authority(&realm) }, None),
        };
        let call = self.call(&realm, shown.as_ref(), &host.authority)?;
        let reply = client.0.http.send(&call).await?;
        let answer = self.read(client, reply, &login).await?;
        let text = answer.token.filter(|t| !t.is_empty()).or(answer.access_token).unwrap_or_default();
        if text.is_empty() {
            return Err(Error::invalid(self.doing, format!("the token server `{}` gave no token", authority(&realm))));
        }
        // The distribution protocol's default is a minute; a tenth is kept in hand for clocks and slow requests.
        let seconds = answer.expires_in.unwrap_or(60).clamp(10, 24 * 3600);
        let until = Instant::now() + Duration::from_secs(seconds) * 9 / 10;
        let value = secret(&format!("Bearer {text}"), &host.authority)?;
        Ok((Token { value, login, until }, answer.refresh_token))
    }

    /// The realm as a URL: https, unless the registry itself is spoken to in plain text.
    async fn checked_realm(&self, client: &RegistryClient, host: &Host) -> Result<Url> {
        let base = host.base(&client.0.http).await;
        let joined = base.parse::<Url>().and_then(|base| base.join(self.realm));
        let realm = joined.map_err(|_| Error::invalid(self.doing, "the registry's token realm is not a URL"))?;
        if realm.scheme() != "https" && base.starts_with("https:") {
            return Err(refuse(self.doing, &realm, "a secure registry may not send us to a plain-text token server"));
        }
        let local = |text: &str| crate::http::is_loopback(host_of(text));
        if local(&authority(&realm)) && !local(&host.authority) {
            return Err(refuse(self.doing, &realm, "a registry elsewhere may not send us to this machine"));
        }
        Ok(realm)
    }

    fn call(&self, realm: &Url, credential: Option<&Credential>, host: &str) -> Result<Call> {
        let scopes = self.scopes.split(' ').filter(|scope| !scope.is_empty());
        // OAuth2 takes all scopes in one field (distribution, token/oauth).
        let one = scopes.clone().collect::<Vec<_>>().join(" ");
        let mut fields: Vec<(&str, &str)> = scopes.map(|scope| ("scope", scope)).collect();
        if let Some(service) = self.service {
            fields.insert(0, ("service", service));
        }
        let doing = format!("get a token from `{}` to {}", authority(realm), self.doing);
        let mut call = Call {
            doing,
            method: Method::GET,
            url: realm.clone(),
            headers: HeaderMap::new(),
            body: None,
            trust: Trust::Registry,
        };
        match credential {
            Some(Credential::IdentityToken(token)) => {
                fields.retain(|(name, _)| *name != "scope");
                fields.extend([("scope", &*one), ("grant_type", "refresh_token"), ("client_id", "kiln")]);
                fields.push(("refresh_token", token));
                call.method = Method::POST;
                call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
                call.body = Some(form(&fields));
            }
            Some(Credential::Password { username, .. }) => {
                fields.push(("account", username));
                let authorization = basic(credential.expect("just matched"), host)?;
                authorization.apply(&mut call.headers);
            }
            _ => {}
        }
        if call.method == Method::GET {
            if credential.is_some() {
                fields.extend([("client_id", "kiln"), ("offline_token", "true")]);
            }
            call.url.query_pairs_mut().extend_pairs(&fields);
        }
        Ok(call)
    }

    async fn read(&self, client: &RegistryClient, reply: Reply, login: &Login) -> Result<TokenAnswer> {
        let status = reply.status();
        let doing = format!("get a token from `{}` to {}", authority(reply.response.url()), self.doing);
        match status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                return Err(Error::Unauthorized {
                    doing: self.doing.to_owned(),
                    host: authority(reply.response.url()),
                    status: status.as_u16(),
                    tried: login.clone(),
                    message: words(reply.response).await,
                });
            }
            _ => return Err(status_error(&doing, reply).await),
        }
        let bytes = answer_bytes(&client.0.http.options().retry, &doing, reply, limits::ANSWER).await?;
        // A parser's message could quote the token.
        serde_json::from_slice(&bytes).map_err(|_| Error::invalid(doing, "its answer is not a token"))
    }
}

fn form(fields: &[(&str, &str)]) -> Bytes {
    let url = Url::parse_with_params("http://form/", fields).expect("a constant URL");
    Bytes::copy_from_slice(url.query().unwrap_or_default().as_bytes())
}

/// Whether a realm may see a registry's credentials: its own host, a host of the same domain over TLS, or one the
/// user has named. The domain is the registry's host without its first label, if two labels remain.
fn may_see_credentials(registry: &str, realm: &Url, allowed: &[String]) -> bool {
    let realm_authority = authority(realm);
    let realm_host = host_of(&realm_authority);
    if realm_authority == registry || allowed.iter().any(|a| *a == realm_authority || a == realm_host) {
        return true;
    }
    let host = host_of(registry);
    let is_name = |host: &str| !host.starts_with('[') && host.parse::<std::net::IpAddr>().is_err();
    if realm.scheme() != "https" || !is_name(host) || !is_name(realm_host) {
        return false;
    }
    let domain = host.split_once('.').map(|(_, parent)| parent).filter(|parent| parent.contains('.'));
    let within =
        |host: &str, domain: &str| host == domain || host.strip_suffix(domain).is_some_and(|h| h.ends_with('.'));
    within(realm_host, host) || domain.is_some_and(|domain| within(realm_host, domain))
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

    #[test]
    fn realms_of_other_domains_see_no_credentials() {
        for (registry, realm, trusted) in [
            ("registry-1.docker.io", "https://auth.docker.io/token", true),
            ("ghcr.io", "https://ghcr.io/token", true),
            ("registry.gitlab.com", "https://gitlab.com/jwt/auth", true),
            ("registry.example.co.uk", "https://login.example.co.uk/t", true),
            ("example.com", "https://auth.example.com/t", true),
            ("ghcr.io", "https://evil.io/token", false),
            ("a.github.io", "http://b.github.io/token", false),
            ("example.com", "https://example.com.evil.org/t", false),
            ("example.com", "https://notexample.com/t", false),
            ("registry.gitlab.com", "http://gitlab.com/jwt/auth", false),
            ("127.0.0.1:5000", "http://127.0.0.1:5000/token", true),
            ("127.0.0.1:5000", "http://127.0.0.1:5001/token", false),
            ("127.0.0.1:5000", "https://0.0.1/token", false),
            ("localhost:5000", "http://127.0.0.1:5000/token", false),
            ("r.corp:5000", "https://sso.elsewhere.net/t", true),
        ] {
            let allowed = ["sso.elsewhere.net".to_owned()];
            assert_eq!(may_see_credentials(registry, &realm.parse().unwrap(), &allowed), trusted, "{registry} {realm}");
        }
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(form(&[("a b", "c&d=é")]), "a+b=c%26d%3D%C3%A9");
    }
}
