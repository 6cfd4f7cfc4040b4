//! Who asks: requests are signed with keys, or with what an identity of the machine is lent.

use async_trait::async_trait;
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::azure::{AzureAuthorizer, AzureCredentialProvider};
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::{BackoffConfig, RetryConfig};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use sha2::Digest as _;

use super::Secret;
use super::wire::said;
use crate::http::Call;
use crate::{Error, Result};

/// Signs requests.
#[async_trait]
pub(super) trait Sign: Send + Sync {
    /// Signs one.
    async fn sign(&self, call: &mut Call) -> Result<()>;
}

/// For addresses that are signed themselves.
pub(super) struct Unsigned;

#[async_trait]
impl Sign for Unsigned {
    async fn sign(&self, _: &mut Call) -> Result<()> {
        Ok(())
    }
}

/// Shows a token.
pub(super) struct Bearer(pub(super) Secret);

#[async_trait]
impl Sign for Bearer {
    async fn sign(&self, call: &mut Call) -> Result<()> {
        let value = HeaderValue::from_str(&format!("Bearer {}", self.0.expose()));
        let mut value = value.map_err(|_| refused(call, "the token is no header value"))?;
        value.set_sensitive(true);
        call.headers.insert(AUTHORIZATION, value);
        Ok(())
    }
}

/// Signs for S3.
pub(super) struct Aws {
    pub(super) credentials: AwsCredentialProvider,
    pub(super) region: String,
}

#[async_trait]
impl Sign for Aws {
    async fn sign(&self, call: &mut Call) -> Result<()> {
        let credential = self.credentials.get_credential().await.map_err(|error| no_credentials(call, &error))?;
        let mut request = request(call)?;
        let digest = sha2::Sha256::digest(call.body.as_deref().unwrap_or_default());
        let signed =
            AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, Some(digest.as_slice()));
        signed.map_err(|error| no_credentials(call, &error))?;
        call.headers = std::mem::take(request.headers_mut());
        Ok(())
    }
}

/// Signs for Azure.
pub(super) struct Azure {
    pub(super) credentials: AzureCredentialProvider,
    pub(super) account: String,
}

#[async_trait]
impl Sign for Azure {
    async fn sign(&self, call: &mut Call) -> Result<()> {
        let credential = self.credentials.get_credential().await.map_err(|error| no_credentials(call, &error))?;
        let mut request = request(call)?;
        let signed = AzureAuthorizer::new(&credential, &self.account).try_authorize(&mut request);
        signed.map_err(|error| no_credentials(call, &error))?;
        if let Ok(url) = request.uri().to_string().parse() {
            call.url = url;
        }
        call.headers = std::mem::take(request.headers_mut());
        Ok(())
    }
}

/// Identities are asked for a few times only: where there are none, nobody answers.
pub(super) fn patience() -> RetryConfig {
    let backoff = BackoffConfig::default();
    RetryConfig { backoff, max_retries: 2, retry_timeout: std::time::Duration::from_secs(10) }
}

fn request(call: &Call) -> Result<HttpRequest> {
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.method_mut() = call.method.clone();
    *request.uri_mut() =
        call.url.as_str().parse().map_err(|_| Error::invalid(&call.doing, "its address is no address of a request"))?;
    *request.headers_mut() = call.headers.clone();
    Ok(request)
}

fn refused(call: &Call, reason: impl Into<String>) -> Error {
    Error::Credentials { host: crate::http::authority(&call.url), reason: reason.into() }
}

/// Of the causes only the last is told, and of what a server answered only its code and message.
fn no_credentials(call: &Call, error: &object_store::Error) -> Error {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let last = causes.last().map(ToString::to_string).unwrap_or_default();
    let told = match last.contains(['<', '{', '?']) {
        true => said(last.as_bytes()),
        false => Some(last),
    };
    let told = told.map(|told| format!(": {told}")).unwrap_or_default();
    refused(call, format!("none were given, and the machine lends none{told}"))
}
