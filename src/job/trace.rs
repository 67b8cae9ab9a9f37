//! W3C trace contexts, carried from an enqueue to the handler as `_trace.traceparent` of the payload.
//! Knows the payload's text, and nothing of tracing libraries.

use crate::error::{Error, Result};
use serde_json::{Map, Value, json};

/// Where the async crate keeps its trace, too.
const FIELD: &str = "_trace";

/// Puts a trace context into a payload. A payload that is no JSON object has no place for it: `None`.
pub(crate) fn carry(payload: &str, traceparent: &str) -> Option<String> {
    let inner = payload.strip_prefix('{')?.strip_suffix('}')?;
    if payload.contains(FIELD) {
        // It may have one already, so look closer.
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

/// The trace context that a payload carries, also one that the async crate wrote.
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

/// The payload without its trace context, for a task whose type has no room for one; `None` if it has none.
pub(crate) fn without(payload: &[u8]) -> Option<Value> {
    let mut fields = fields(payload)?;
    fields.remove(FIELD)?;
    Some(Value::Object(fields))
}

/// The fields of a payload in which the word occurs at all: most carry no trace, and are not read twice.
fn fields(payload: &[u8]) -> Option<Map<String, Value>> {
    let mentioned = payload.windows(FIELD.len()).any(|bytes| bytes == FIELD.as_bytes());
    mentioned.then(|| serde_json::from_slice(payload).ok()).flatten()
}

/// Checks a `traceparent` as W3C Trace Context has it: `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero.
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
            "traceparent: is not as W3C Trace Context has it: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, \
             lower case, ids not all zero",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_carried_is_found_and_the_rest_is_as_it_was() {
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
    fn the_async_crates_trace_is_read_as_well() {
        let theirs =
            r#"{"_trace":{"flags":1,"trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"b7ad6b7169203331"}}"#;
        assert_eq!(of(theirs.as_bytes()).as_deref(), Some(PARENT));
    }

    #[test]
    fn only_a_traceparent_is_one() {
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
