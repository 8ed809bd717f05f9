//! The system calls as HTTP knows them: paths, JSON, problems, and the OpenAPI document.
//!
//! What it is not: a server. These are functions from bytes to values and back; the table of calls
//! is [`wire::call`] alone.

use hyper::StatusCode;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use wire::call::{Call, Problem, ProblemCode, Request, Response};
use wire::stream::Open;

/// Before every path.
pub(crate) const PREFIX: &str = "/v1/";
/// Where streams are opened.
pub(crate) const STREAM_PATH: &str = "/v1/stream";
/// What `Upgrade` must say.
pub(crate) const STREAM_PROTOCOL: &str = "welkin-stream/1";

/// The path of the call as it is in the table, without [`PREFIX`].
pub(crate) fn known_path(path: &str) -> Option<&'static str> {
    macro_rules! known {
        ($request:ident) => {
            if path == <wire::call::$request as Call>::PATH {
                return Some(<wire::call::$request as Call>::PATH);
            }
        };
    }
    wire::for_each_call!(known);
    None
}

/// Reads the body of the call at `path`. An empty body is an empty object.
pub(crate) fn parse(path: &str, body: &[u8]) -> Result<Request, Problem> {
    macro_rules! parse_one {
        ($request:ident) => {
            if path == <wire::call::$request as Call>::PATH {
                return from_json::<wire::call::$request>(body).map(Request::from);
            }
        };
    }
    wire::for_each_call!(parse_one);
    Err(unknown_path(path))
}

fn from_json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let body = if body.iter().all(u8::is_ascii_whitespace) {
        b"{}"
    } else {
        body
    };
    let mut decoder = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut decoder).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." {
            "the body".to_owned()
        } else {
            format!("`{path}`")
        };
        invalid(format!("{place} cannot be understood: {}", error.inner()))
    })?;
    decoder
        .end()
        .map_err(|error| invalid(format!("the body is not one JSON value: {error}")))?;
    Ok(value)
}

fn invalid(detail: String) -> Problem {
    let remedy = "the calls are described at /v1/openapi.json";
    Problem::new(ProblemCode::Invalid, detail).remedy(remedy)
}

pub(crate) fn unknown_path(path: &str) -> Problem {
    let text = format!("there is no call `{path}`");
    Problem::new(ProblemCode::NotFound, text).remedy("the calls are listed at /v1/openapi.json")
}

/// The JSON of a successful answer.
pub(crate) fn to_json(response: &Response) -> Result<Vec<u8>, Problem> {
    macro_rules! one {
        ($request:ident) => {
            if let Response::$request(answer) = response {
                return serde_json::to_vec(answer).map_err(unspeakable);
            }
        };
    }
    wire::for_each_call!(one);
    Err(Problem::new(
        ProblemCode::Internal,
        "the answer belongs to no call",
    ))
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn unspeakable(error: serde_json::Error) -> Problem {
    Problem::new(
        ProblemCode::Internal,
        format!("the answer cannot be written as JSON: {error}"),
    )
}

/// The status of a problem.
pub(crate) fn status(problem: &Problem) -> StatusCode {
    StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The `OpenAPI` 3 document of all calls.
pub(crate) fn document() -> Value {
    let mut generator = SchemaSettings::openapi3().into_generator();
    let problem = generator.subschema_for::<Problem>();
    let open = generator.subschema_for::<Open>();
    let refused = json!({
        "description": "Why it was refused (RFC 9457)",
        "content": { "application/problem+json": { "schema": problem } },
    });
    let mut paths = serde_json::Map::new();
    macro_rules! path {
        ($request:ident) => {
            let request = generator.subschema_for::<wire::call::$request>();
            let response =
                generator.subschema_for::<<wire::call::$request as Call>::Response>();
            let post = json!({ "post": {
                "operationId": stringify!($request),
                "summary": <wire::call::$request as Call>::SUMMARY.trim(),
                "requestBody": { "content": { "application/json": { "schema": request } } },
                "responses": {
                    "200": {
                        "description": "Done",
                        "content": { "application/json": { "schema": response } },
                    },
                    "default": refused.clone(),
                },
            }});
            paths.insert(format!("{PREFIX}{}", <wire::call::$request as Call>::PATH), post);
        };
    }
    wire::for_each_call!(path);
    paths.insert(
        STREAM_PATH.to_owned(),
        stream_path(&open.to_value(), &refused),
    );
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "Welkin system calls",
            "description": "What programs and people ask of the Cloud OS. Any node answers.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": { "schemas": generator.take_definitions(true) },
    })
}

fn stream_path(open: &Value, refused: &Value) -> Value {
    json!({ "post": {
        "operationId": "Stream",
        "summary": "Frames of bytes: terminals, logs, files, events",
        "description": format!(
            "Send `Upgrade: {STREAM_PROTOCOL}`; then both sides speak frames, and the first one \
             is the JSON of `Open`."
        ),
        "x-first-frame": open,
        "responses": {
            "101": { "description": "Frames follow" },
            "default": refused,
        },
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses(path: &str, body: &str, words: &[&str]) {
        let problem = parse(path, body.as_bytes()).unwrap_err();
        for word in words {
            assert!(problem.detail.contains(word), "{problem:?} has no {word}");
        }
        assert!(!problem.remedy.is_empty());
    }

    #[test]
    fn what_is_wrong_in_a_body_is_named() {
        refuses("app/stop", "{}", &["the body", "missing field `target`"]);
        refuses(
            "app/scale",
            r#"{"target":"a","replicas":"x"}"#,
            &["`replicas`", "invalid type"],
        );
        let body = r#"{"spec":{"name":"a","program":{"arguments":[1]}}}"#;
        refuses("app/run", body, &["`spec.program.arguments[0]`"]);
        refuses("app/stop", r#"{"target":"a"} x"#, &["not one JSON value"]);
        refuses("app/stop", "{", &["EOF"]);
        refuses("app/fly", "{}", &["app/fly"]);
    }

    #[test]
    fn an_empty_body_asks_with_defaults() {
        assert_eq!(parse("cloud/info", b"").unwrap().path(), "cloud/info");
        assert_eq!(
            parse("cloud/invite", b" \n").unwrap().path(),
            "cloud/invite"
        );
    }

    #[test]
    fn every_path_of_the_document_exists_and_every_reference_leads_somewhere() {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.len() > 20);
        for path in paths.keys().filter(|path| *path != STREAM_PATH) {
            let path = path.strip_prefix(PREFIX).unwrap();
            assert_eq!(known_path(path), Some(path));
            // A body of the wrong type is refused by the call itself, not for its path.
            assert_eq!(parse(path, b"1").unwrap_err().code, ProblemCode::Invalid);
        }
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
