//! Fetches bearer tokens, and shows our name only to realms that may see it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::RegistryClient;
use super::auth::{Token, basic, secret};
use super::host::Host;
use crate::error::Login;
use crate::http::{
    Call, Patience, Reply, Trust, answer_bytes, authority, host_of, is_worth_retrying, refuse, status_error, words,
};
use crate::{Credential, Error, Result, limits};

/// A token to be fetched.
pub(crate) struct Wish<'a> {
    pub(crate) realm: &'a str,
    pub(crate) service: Option<&'a str>,
    pub(crate) scopes: &'a str,
    pub(crate) doing: &'a str,
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
    pub(crate) async fn fetch(
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
        let mut patience = Patience::new(client.0.http.retry());
        let answer = loop {
            let reply = client.0.http.send(&call).await?;
            match self.read(client, reply, &login).await {
                Err(error) if is_worth_retrying(&error) => patience.wait(error).await?,
                answer => break answer?,
            }
        };
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

#[cfg(test)]
mod tests {
    use super::*;

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
