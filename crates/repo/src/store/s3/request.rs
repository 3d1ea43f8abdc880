//! Signed requests of our own: what the client library has no call for (locks, versions, a put that says how
//! long it shall last). The library signs, connects and speaks HTTP; the path, the query and the headers are ours.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use data_encoding::BASE64;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};

use crate::store::remote::{Answer, Failure, Kind, encode, exchange};

/// A bucket's address and the credentials for it.
pub(super) struct Signer {
    pub http: HttpClient,
    pub credential: AwsCredential,
    pub region: String,
    /// Without a slash at the end.
    pub bucket_url: String,
}

/// One request to the bucket.
pub(super) struct Request {
    pub method: &'static str,
    /// The key in the bucket, with the prefix; empty for the bucket itself.
    pub path: String,
    pub query: Vec<(&'static str, String)>,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    /// Sent instead of the body's own checksum: to see whether the service looks.
    pub checksum: Option<[u8; 32]>,
}

impl Request {
    pub(super) fn new(method: &'static str, path: String) -> Request {
        Request { method, path, query: vec![], headers: vec![], body: Bytes::new(), checksum: None }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Request {
        self.query.push((name, value.into()));
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Request {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, body: Bytes) -> Request {
        self.body = body;
        self
    }
}

impl Signer {
    /// Sends it and reads the answer, each within `limit`. Any status but a success is a failure.
    pub(super) async fn send(&self, request: Request, limit: Duration) -> Result<Answer, Failure> {
        let odd = |what: &str| Failure {
            kind: Kind::Other,
            text: format!("a request that cannot be sent: {what}"),
        };
        let mut url = self.bucket_url.clone();
        if !request.path.is_empty() {
            url.push('/');
            encode(&mut url, &request.path, true);
        }
        for (at, (name, value)) in request.query.iter().enumerate() {
            url.push(if at == 0 { '?' } else { '&' });
            encode(&mut url, name, false);
            // As every client writes it; there are services that do not know `?retention=`.
            if !value.is_empty() {
                url.push('=');
                encode(&mut url, value, false);
            }
        }
        let hash = digest(&SHA256, &request.body);
        let mut http = HttpRequest::new(HttpRequestBody::from(request.body.clone()));
        *http.method_mut() = request.method.parse().map_err(|_| odd(request.method))?;
        *http.uri_mut() = url.parse().map_err(|_| odd(&url))?;
        for (name, value) in &request.headers {
            http.headers_mut().insert(*name, value.parse().map_err(|_| odd(name))?);
        }
        if request.method == "PUT" {
            // Buckets with object lock take no put without a checksum, and every service should look at it.
            let sum = request.checksum.as_ref().map_or(hash.as_ref(), |sum| sum.as_slice());
            let sum = BASE64.encode(sum).parse().map_err(|_| odd("checksum"))?;
            http.headers_mut().insert("x-amz-checksum-sha256", sum);
            // Some services take the list of the client's checksums from here only.
            let name = "SHA256".parse().map_err(|_| odd("checksum"))?;
            http.headers_mut().insert("x-amz-sdk-checksum-algorithm", name);
        }
        let signer = AwsAuthorizer::new(&self.credential, "s3", &self.region);
        signer.try_authorize(&mut http, Some(hash.as_ref())).map_err(|error| odd(&error.to_string()))?;

        exchange(&self.http, http, limit).await
    }
}
