//! A webhook with its own certificate, asked by both servers: what it answers depends on the path it is asked at.
//!
//! `tls/` holds a self-signed certificate for 127.0.0.1, good for a hundred years and for nothing else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use apiserver::{Ask, Question};
use futures::FutureExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::Step;
use crate::steps::{APPLY, MERGE, delete, get, patch, post, put};

const CERTIFICATE: &str = include_str!("tls/cert.pem");
const KEY: &str = include_str!("tls/key.pem");

/// Starts it; it ends with the test.
pub fn start() -> u16 {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = config.clone();
            // A client that goes away in the middle is its own business.
            std::thread::spawn(move || drop(serve(stream, config)));
        }
    });
    port
}

fn serve(mut stream: TcpStream, config: Arc<rustls::ServerConfig>) -> std::io::Result<()> {
    let mut session = rustls::ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut reader = BufReader::new(rustls::Stream::new(&mut session, &mut stream));
    loop {
        let (mut line, mut length) = (String::new(), 0);
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or("").split('?').next().unwrap_or("").to_string();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
            if header.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let review: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = answer(&path, &review);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        reader.get_mut().write_all(head.as_bytes())?;
        reader.get_mut().write_all(text.as_bytes())?;
        reader.get_mut().flush()?;
    }
}

fn answer(path: &str, review: &Value) -> String {
    let request = &review["request"];
    let respond = |response: Value| {
        let mut response = response;
        response["uid"] = request["uid"].clone();
        json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response})
            .to_string()
    };
    let patch = |operations: &str| {
        let coded = data_encoding_base64(operations.as_bytes());
        respond(json!({"allowed": true, "patchType": "JSONPatch", "patch": coded}))
    };
    match path {
        "/slow" => {
            std::thread::sleep(Duration::from_secs(3));
            respond(json!({"allowed": true}))
        }
        "/garbage" => "this is no review".into(),
        "/label" => patch(r#"[{"op":"add","path":"/metadata/labels","value":{"hooked":"yes"}}]"#),
        "/data" => patch(r#"[{"op":"add","path":"/data/hook","value":"was here"}]"#),
        // Refuses what the mutating one did not see, and whatever is called so.
        "/guard" => {
            let object =
                if request["object"].is_object() { &request["object"] } else { &request["oldObject"] };
            let name = object["metadata"]["name"].as_str().unwrap_or("");
            if request["operation"] == "DELETE" {
                let message = format!("{name} may not go");
                return respond(
                    json!({"allowed": name != "stays", "status": {"code": 403, "message": message, "reason": "Forbidden"}}),
                );
            }
            if name == "forbidden" {
                return respond(
                    json!({"allowed": false, "status": {"message": "no such name", "code": 418}}),
                );
            }
            if name == "silent" {
                return respond(json!({"allowed": false}));
            }
            let seen =
                object["metadata"]["labels"]["hooked"] == "yes" && object["data"]["hook"] == "was here";
            respond(
                json!({"allowed": seen, "warnings": ["looked at"], "status": {"message": "not mutated first"}}),
            )
        }
        _ => respond(json!({"allowed": true})),
    }
}

fn data_encoding_base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * at)) as usize & 63];
            out.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

/// How ours asks: through the client library, with the certificate of the configuration.
pub fn ask() -> Ask {
    Arc::new(|question: Question| {
        async move {
            let url: http::Uri =
                question.client_config["url"].as_str().ok_or("no url")?.parse().map_err(said)?;
            let root = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).map_err(said)?;
            let mut config = kube::Config::new(
                format!("https://{}", url.authority().ok_or("no host")?).parse().map_err(said)?,
            );
            config.root_cert = Some(vec![root.to_vec()]);
            let client = kube::Client::try_from(config).map_err(said)?;
            let request = http::Request::builder()
                .method("POST")
                .uri(url.path())
                .header("content-type", "application/json");
            let request = request.body(question.review.to_string().into_bytes()).map_err(said)?;
            client.request::<Value>(request).await.map_err(said)
        }
        .boxed()
    })
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// What is asked of both servers while webhooks stand between.
pub fn steps(port: u16) -> Vec<Step> {
    let confs = "/api/v1/namespaces/hooked/configmaps";
    let one = |rest: &str| format!("{confs}/{rest}");
    let conf = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}});
    let bundle = data_encoding_base64(CERTIFICATE.as_bytes());
    let hook = |name: &str, path: &str, operations: Value, more: Value| {
        let mut hook = json!({"name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 5,
            "clientConfig": {"url": format!("https://127.0.0.1:{port}{path}"), "caBundle": bundle},
            "namespaceSelector": {"matchLabels": {"hooks": "on"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": operations, "resources": ["configmaps"]}]});
        hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        hook
    };
    let group = "/apis/admissionregistration.k8s.io/v1";
    let configuration = |kind: &str, name: &str, hooks: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": hooks});
    let (mutating, validating) = (
        format!("{group}/mutatingwebhookconfigurations"),
        format!("{group}/validatingwebhookconfigurations"),
    );
    let writes = json!(["CREATE", "UPDATE"]);
    vec![
        post("hooked namespace", "/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "hooked", "labels": {"hooks": "on"}}})),
        get("its map", &one("kube-root-ca.crt")).own_words(),
        post("before any hook", confs, conf("before")),
        post("guard", &validating, configuration("ValidatingWebhookConfiguration", "same-guard", json!([
            hook("guard.same.io", "/guard", json!(["CREATE", "UPDATE", "DELETE"]), json!({"objectSelector": {"matchExpressions": [
                {"key": "unguarded", "operator": "DoesNotExist"}]}}))]))).own_words(),
        // A real server learns of a configuration a little later.
        post("guard is there", &format!("{confs}?dryRun=All"), conf("probe")).patient(),
        post("refused until mutated", confs, conf("first")),
        post("label and data", &mutating, configuration("MutatingWebhookConfiguration", "same-mutate", json!([
            hook("label.same.io", "/label", writes, json!({})), hook("data.same.io", "/data", json!(["CREATE"]), json!({}))]))).own_words(),
        post("mutators are there", &format!("{confs}?dryRun=All"), conf("probe")).patient(),
        post("mutated and allowed", confs, conf("second")),
        get("as mutated", &one("second")),
        post("refused by name", confs, conf("forbidden")),
        post("refused in silence", confs, conf("silent")),
        post("not selected", confs, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "un", "labels": {"unguarded": "1"}}})).own_words(),
        post("in another namespace", "/api/v1/namespaces/default/configmaps", conf("elsewhere")),
        post("dry run through hooks", &format!("{confs}?dryRun=All"), conf("dry")),
        get("was only dry", &one("dry")),
        patch("patched through hooks", &one("second"), MERGE, json!({"data": {"b": "2"}})),
        patch("applied through hooks", &one("applied?fieldManager=m"), APPLY, conf("applied")),
        put("put through hooks", &one("second"), conf("second")).own_words(),
        post("one that stays", confs, conf("stays")),
        delete("may not go", &one("stays")),
        delete("may go", &one("second")),
        delete("gone unguarded", &format!("{validating}/same-guard")).own_words(),
        delete("gone unmutated", &format!("{mutating}/same-mutate")).own_words(),
        post("guard is gone", &format!("{confs}?dryRun=All"), conf("forbidden")).patient(),
        post("broken ones", &validating, configuration("ValidatingWebhookConfiguration", "same-broken", json!([
            hook("ignored.same.io", "/slow", json!(["CREATE"]), json!({"failurePolicy": "Ignore", "timeoutSeconds": 1})),
            hook("garbage.same.io", "/garbage", json!(["DELETE"]), json!({"failurePolicy": "Fail"}))]))).own_words(),
        delete("broken ones are there", &one("stays?dryRun=All")).own_words().patient(),
        delete("refused for garbage", &one("stays")).own_words(),
        post("slow and ignored", confs, conf("slow")),
        delete("end of broken ones", &format!("{validating}/same-broken")).own_words(),
        delete("broken ones are gone", &one("stays?dryRun=All")).patient(),
        delete("elsewhere ends", "/api/v1/namespaces/default/configmaps/elsewhere"),
        delete("end of hooks", "/api/v1/namespaces/hooked").own_words(),
    ]
}
