//! W3C trace contexts: an enqueue stores one as `_trace.traceparent` in the payload, and the handler reads it.
//! Knows the payload's text, and no tracing library.

use crate::error::{Error, Result};
use serde_json::{Map, Value, json};

/// The field of the payload. The async crate uses the same name.
const FIELD: &str = "_trace";

/// Adds a trace context to a payload. Returns `None` if the payload is not a JSON object.
pub(crate) fn carry(payload: &str, traceparent: &str) -> Option<String> {
    let inner = payload.strip_prefix('{')?.strip_suffix('}')?;
    if payload.contains(FIELD) {
        // The payload may already have a trace context, so it must be parsed.
        let mut fields: Map<String, Value> = serde_json::from_str(payload).ok()?;
        match fields.get_mut(FIELD).and_then(Value::as_object_mut) {
            Some(trace) => _ = trace.insert("traceparent".into(), traceparent.into()),
            None => _ = fields.insert(FIELD.into(), json!({ "traceparent": traceparent })),
        }
        return Some(Value::Object(fields).to_string());
    }
    let comma = if inner.trim().is_empty() { "" } else { "," };
    Some(format!("{{{inner}{comma}\"{FIELD}\":{{\"traceparent\":\"{traceparent}\"}}}}"))
}

/// Returns the trace context of a payload. Also reads the format of the async crate.
pub(crate) fn of(payload: &[u8]) -> Option<String> {
    let payload = fields(payload)?;
    let trace = payload.get(FIELD)?;
    let text = |name: &str| trace.get(name).and_then(Value::as_str);
    let traceparent = match text("traceparent") {
        Some(traceparent) => traceparent.to_owned(),
        None => {
            let flags = trace.get("flags").and_then(Value::as_u64)?;
            format!("00-{}-{}-{flags:02x}", text("trace_id")?, text("span_id")?)
        }
    };
    check(&traceparent).is_ok().then_some(traceparent)
}

/// Returns the payload without its trace context, for a task whose type does not accept the extra field. Returns `None`
/// if the payload has no trace context.
pub(crate) fn without(payload: &[u8]) -> Option<Value> {
    let mut fields = fields(payload)?;
    fields.remove(FIELD)?;
    Some(Value::Object(fields))
}

/// Parses a payload, but only if it contains the name of the field. Most payloads do not, and are not parsed twice.
fn fields(payload: &[u8]) -> Option<Map<String, Value>> {
    let mentioned = payload.windows(FIELD.len()).any(|bytes| bytes == FIELD.as_bytes());
    mentioned.then(|| serde_json::from_slice(payload).ok()).flatten()
}

/// Checks a `traceparent` as specified by W3C Trace Context: `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero.
pub(crate) fn check(traceparent: &str) -> Result<()> {
    let parts: Vec<&str> = traceparent.split('-').collect();
    let hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let valid = match parts[..] {
        [version, trace, span, flags] => {
            let ids = [(trace, 32), (span, 16)];
            hex(version, 2)
                && version != "ff"
                && hex(flags, 2)
                && ids.iter().all(|(id, digits)| hex(id, *digits) && id.bytes().any(|byte| byte != b'0'))
        }
        _ => false,
    };
    match valid {
        true => Ok(()),
        false => Err(Error::config(
            "traceparent: is not valid; W3C Trace Context requires 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, \
             lower case, ids not all zero",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn traceparent_is_stored_and_the_rest_stays_unchanged() {
        for (payload, carried) in [
            ("{}", r#"{"_trace":{"traceparent":"P"}}"#),
            (r#"{ "b":1.10}"#, r#"{ "b":1.10,"_trace":{"traceparent":"P"}}"#),
            (r#"{"_trace":{"x":1}}"#, r#"{"_trace":{"traceparent":"P","x":1}}"#),
            (r#"{"a":"_trace"}"#, r#"{"_trace":{"traceparent":"P"},"a":"_trace"}"#),
            (r#"{"_trace":7}"#, r#"{"_trace":{"traceparent":"P"}}"#),
        ] {
            let carried_so = carry(payload, PARENT).unwrap();
            assert_eq!(carried_so, carried.replace('P', PARENT));
            assert_eq!(of(carried_so.as_bytes()).as_deref(), Some(PARENT));
        }
        assert_eq!((carry("[1]", PARENT), carry("null", PARENT)), (None, None));
        assert_eq!(of(br#"{"a":1}"#), None);
        assert_eq!(of(br#"{"_trace":{"traceparent":"nonsense"}}"#), None);
    }

    #[test]
    fn trace_format_of_the_async_crate_is_read() {
        let theirs =
            r#"{"_trace":{"flags":1,"trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"b7ad6b7169203331"}}"#;
        assert_eq!(of(theirs.as_bytes()).as_deref(), Some(PARENT));
    }

    #[test]
    fn invalid_traceparents_are_refused() {
        check(PARENT).unwrap();
        for wrong in
            ["", "00", &PARENT.to_uppercase(), &PARENT[1..], &format!("{PARENT}-"), &PARENT.replace("00-", "ff-")]
        {
            check(wrong).unwrap_err();
        }
        check("00-00000000000000000000000000000000-b7ad6b7169203331-01").unwrap_err();
        check("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01").unwrap_err();
    }
}
