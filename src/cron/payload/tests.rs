//! Tests that texts are converted as by Node's JSON5, and that errors have the right position.

use super::*;

#[track_caller]
fn becomes(json5: &str, json: &str) {
    let members = Members::parse(json5).unwrap_or_else(|fault| panic!("{json5}: {fault:?}"));
    assert_eq!(members.text(), json, "{json5}");
}

#[track_caller]
fn refused(json5: &str, at: usize, why: &str) {
    match Members::parse(json5) {
        Err(fault) => assert!(fault.at == at && fault.why.contains(why), "{json5}: {fault:?}"),
        Ok(members) => panic!("{json5}: {}", members.text()),
    }
}

#[test]
fn a_number_keeps_its_digits() {
    for number in ["0", "-0", "1e400", "-1.50E+07", "123456789012345678901234567890", "0.1000", "18446744073709551616"]
    {
        becomes(&format!("{{a:{number}}}"), &format!("{{\"a\":{number}}}"));
    }
    becomes(
        "{a:[+1,+.5,-.5e-3,5.,5.e3,0x1F,-0XfF,0xffffffffffffffffff]}",
        r#"{"a":[1,0.5,-0.5e-3,5,5e3,31,-255,4722366482869645213695]}"#,
    );
}

#[test]
fn numbers_that_json_does_not_have_are_refused_by_name() {
    refused("{a:NaN}", 3, "has NaN, which JSON does not have");
    refused("{a:[1,-Infinity]}", 6, "has Infinity, which JSON does not have");
    refused("{a:+Infinity}", 3, "has Infinity");
    refused(&format!("{{a:0x{}}}", "f".repeat(33)), 3, "more than 128 bits");
    for (wrong, at) in
        [("012", 3), (".", 3), ("+", 3), ("1e", 4), ("0x", 3), ("--1", 3), ("1_000", 4), ("1n", 4), ("00", 3)]
    {
        refused(&format!("{{a:{wrong}}}"), at, "is not an object of JSON5");
    }
}

#[test]
fn strings_names_and_comments_are_parsed_as_in_javascript() {
    becomes(
        r#"{'a"\'':"it's",$_1:'\x41\u0042\0\v\q\
'}"#,
        r#"{"a\"'":"it's","$_1":"AB\u0000\u000bq"}"#,
    );
    becomes(
        "{\u{e4}b\\u0063:1,\u{feff}d:/*x*/2,// }\n e\u{301}:null,\u{2028}true:[true,false,],}",
        "{\"\u{e4}bc\":1,\"d\":2,\"e\u{301}\":null,\"true\":[true,false]}",
    );
    becomes(
        r#"{a:'\ud83e\udd80',b:'\ud83e',c:'\udd80x',d:'\ud83e\u0041'}"#,
        "{\"a\":\"\u{1f980}\",\"b\":\"\\ud83e\",\"c\":\"\\udd80x\",\"d\":\"\\ud83eA\"}",
    );
    becomes("{a:'\u{2028}\u{9b}\u{7f}'} // done", "{\"a\":\"\u{2028}\u{9b}\u{7f}\"}");
    for (wrong, at) in [
        ("{a:'x}", 3),
        ("{a:'\\1'}", 4),
        ("{a:'\\x4'}", 4),
        ("{a:'\\u12'}", 4),
        ("{1a:1}", 1),
        ("{a b:1}", 3),
        ("{\u{201c}a\u{201d}:1}", 1),
        ("{a}", 2),
        ("{,}", 1),
        ("{a:1,,}", 5),
        ("{a:[1,,2]}", 6),
        ("{a:}", 3),
        ("{a:1", 4),
        ("{a:undefined}", 3),
        ("{a:1}{b:2}", 5),
        ("{/* a:1}", 1),
        ("{a:truely}", 7),
        ("[1]", 0),
        ("", 0),
        ("{a:1\u{85}}", 4),
        ("{\\u0031:1}", 1),
    ] {
        refused(wrong, at, "is not an object of JSON5");
    }
}

#[test]
fn the_last_of_equal_members_wins_at_the_first_position() {
    becomes(
        r#"{a:1,b:{c:1,'c':2},"\u0061":3,__proto__:4,constructor:5}"#,
        r#"{"a":3,"b":{"c":2},"__proto__":4,"constructor":5}"#,
    );
}

#[test]
fn nesting_beyond_127_levels_is_refused_with_its_position() {
    let nested = |levels: usize| format!("{{a:{}{}}}", "[".repeat(levels), "]".repeat(levels));
    let deepest = Members::parse(&nested(DEEPEST - 1)).unwrap().text();
    serde_json::from_str::<serde_json::Value>(&deepest).unwrap();
    refused(&nested(DEEPEST), 3 + DEEPEST - 1, "deeper than 127 levels");
    refused(&nested(1_000_000), 3 + DEEPEST - 1, "deeper than 127 levels");
    refused(&"{a:".repeat(1_000_000), 3 * DEEPEST, "deeper than 127 levels");
}

#[test]
fn json_is_unchanged_except_for_white_space() {
    let json = r#"{"b":1.10,"a":[{},[],"\u0000\ud800"],"c":{"d":1e-7}}"#;
    becomes(json, json);
    becomes(" { \"a\" : [ 1 , 2 ] } ", r#"{"a":[1,2]}"#);
}
