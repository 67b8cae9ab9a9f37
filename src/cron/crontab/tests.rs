//! Tests of the crontab grammar, and that each error has a position.

use super::*;
use crate::cron::schedule::tests::{Dice, fields};
use serde_json::Value;

#[track_caller]
fn one(line: &str) -> Cron {
    let mut entries = Cron::parse(line).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

#[track_caller]
fn refused(text: &str, message: &str) {
    let error = Cron::parse(text).expect_err("must be refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().starts_with(&format!("crontab {message}")), "{error}");
}

#[test]
fn a_line_has_five_fields_a_task_options_and_a_payload() {
    let entry = one(
        "  1,2\t3-5  */2 * 0 my:task/a-b ?id=x-1&fill=1w2d3h4m5s&max=7&queue=q:1&jobKey=a%20b+c&jobKeyMode=preserve_run_at&priority=-3  {a:1,'b':[+.5,],/*c*/d:\"}\"}\r",
    );
    assert_eq!((entry.task.as_str(), entry.identifier()), ("my:task/a-b", "x-1"));
    assert_eq!(entry.fill, CrontabFill::new(1, 2, 3, 4, 5));
    let spec = JobSpec::new().max_attempts(7).queue_name("q:1").priority(-3).job_key("a b c");
    assert_eq!(entry.spec, spec.job_key_mode(JobKeyMode::PreserveRunAt));
    assert_eq!(entry.payload.text(), r#"{"a":1,"b":[0.5],"d":"}"}"#);
    assert_eq!(one("* * * * * t ?fill=1m30s1m").fill, CrontabFill::seconds(150));
    assert_eq!(one("* * * * * t ?job_key=k&job_key_mode=replace"), one("* * * * * t ?jobKey=k&jobKeyMode=replace"));
}

#[test]
fn empty_lines_and_comments_are_skipped() {
    let entries = Cron::parse("\n# a comment\n * * * * * one\r\n\r\n\t# another\n0 0 * * * two {}\n   ").unwrap();
    assert_eq!(entries.iter().map(Cron::identifier).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(Cron::parse("").unwrap(), []);
}

#[test]
fn typed_entries_equal_their_text() {
    struct T;
    impl serde::Serialize for T {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_unit()
        }
    }
    impl<'de> serde::Deserialize<'de> for T {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(T)
        }
    }
    impl TaskHandler for T {
        const IDENTIFIER: &'static str = "t";
        fn run(self, _: crate::WorkerContext) -> impl crate::IntoTaskHandlerResult {}
    }
    assert_eq!(Cron::every_minute::<T>(), one("* * * * * t"));
    assert_eq!(Cron::every_n_minutes::<T>(15).unwrap(), one("*/15 * * * * t"));
    assert_eq!(Cron::hourly_at::<T>(10).unwrap(), one("10 * * * * t"));
    assert_eq!(Cron::daily_at::<T>(8, 30).unwrap(), one("30 8 * * * t"));
    assert_eq!(Cron::weekly_on::<T>(Weekday::Sun, 8, 30).unwrap(), one("30 8 * * 0 t"));
    assert_eq!(Cron::monthly_on::<T>(31, 8, 30).unwrap(), one("30 8 31 * * t"));
    let typed = Cron::yearly_on::<T>(12, 24, 18, 0).unwrap().id("i").fill(CrontabFill::days(2)).queue("q").priority(4);
    let typed = typed.max_attempts(3).job_key("k").job_key_mode(JobKeyMode::Replace).tz("Asia/Tokyo").unwrap();
    assert_eq!(
        typed.payload(json!({"a": [1]})).unwrap(),
        one("0 18 24 12 * t ?id=i&fill=2d&queue=q&priority=4&max=3&jobKey=k&jobKeyMode=replace&tz=Asia/Tokyo {a:[1]}")
    );
    for wrong in [
        Cron::every_n_minutes::<T>(0),
        Cron::every_n_minutes::<T>(61),
        Cron::hourly_at::<T>(60),
        Cron::daily_at::<T>(24, 0),
        Cron::monthly_on::<T>(0, 0, 0),
        Cron::yearly_on::<T>(13, 1, 0, 0),
        Cron::every_minute::<T>().tz("Mars/Olympus"),
    ] {
        assert_eq!(wrong.expect_err("must be refused").kind(), ErrorKind::Config);
    }
    assert_eq!(Cron::every_minute::<T>().payload(1).unwrap_err().kind(), ErrorKind::Payload);
}

#[test]
fn errors_name_their_line_and_column() {
    refused("* * * * *", "line 1, column 10: expected a task name");
    refused("\n* * * *", "line 2, column 8: the day of week is missing");
    refused("60 * * * * t", "line 1, column 1: minute: 60 is outside the field; allowed are 0 to 59");
    refused("  * 1,24 * * * t", "line 1, column 7: hour: 24 is outside");
    refused("* * 0 * * t", "line 1, column 5: day of month: 0 is outside");
    refused("* * * * 8 t", "line 1, column 9: day of week: 8 is outside the field; allowed are 0 to 7");
    refused("5-5 * * * * t", "line 1, column 1: minute: the range \"5-5\" must end after");
    refused("*/0 * * * * t", "line 1, column 1: minute: the step");
    refused("1-9/2 * * * * t", "line 1, column 1: minute: \"1-9/2\" is not a range");
    refused("* * * jan * t", "line 1, column 7: month: \"jan\" is not a number");
    refused("* * * * * t # no", "line 1, column 13: expected ?options");
    refused("* * * * * 9t", "line 1, column 11: expected a task name");
    refused("* * * * * t ?id=a&nope=1", "line 1, column 19: option \"nope\" is unknown");
    refused("* * * * * t ?jobKey=a&job_key=b", "line 1, column 23: option \"job_key\" is given twice");
    refused("* * * * * t ?max=0", "line 1, column 14: max_attempts: 0 is outside 1 to 32767");
    refused("* * * * * t ?max=70000", "line 1, column 14: max_attempts: 70000");
    refused("* * * * * t ?priority=40000", "line 1, column 14: priority: 40000 is outside");
    refused("* * * * * t ?fill=1x", "line 1, column 14: fill: \"1x\" is not a duration");
    refused("* * * * * t ?fill=9999w", "line 1, column 14: fill:");
    refused("* * * * * t ?tz=Europe/Atlantis", "line 1, column 14: time zone \"Europe/Atlantis\"");
    refused("* * * * * t {a:1,,}", "line 1, column 18: the payload is not an object of JSON5");
    refused("ä", "line 1, column 1: minute");
    refused("* * * * * one\n* * * * * one {}", "line 2, column 1: identifier \"one\" is already used in line 1");
}

#[test]
fn error_and_debug_texts_contain_no_payload() {
    let error = Cron::parse("* * * * * t {password: hunter2}").unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
    assert!(!format!("{:?}", one("* * * * * t {password: 'hunter2'}")).contains("hunter2"));
}

#[test]
fn every_broken_text_is_an_error_with_a_position() {
    const WORDS: [&str; 12] =
        ["60", "x", "5-5", "9-3", "*/0", "*/", "1-", ",", "1,,2", "1/2", "*-3", "99999999999999999999"];
    const TAILS: [&str; 14] = [
        "9t",
        "t ?",
        "t ?id",
        "t ?id=9",
        "t ?fill=",
        "t ?fill=3y",
        "t ?max=-1",
        "t ?queue=a!b",
        "t ?jobKey=",
        "t ?jobKeyMode=unsafe_dedupe",
        "t ?a=b",
        "t ?max=1&max=1",
        "t {",
        "t [1]",
    ];
    let mut dice = Dice(99);
    for _ in 0..1000 {
        let before = dice.roll(4) as usize;
        let mut text: Vec<String> = (0..before).map(|place| format!("{} t{place}", fields(&mut dice))).collect();
        let line = fields(&mut dice);
        let mut words: Vec<&str> = line.split(' ').collect();
        // Breaks one field, the number of fields, or the text after them.
        let (broken, column) = match dice.roll(3) {
            0 => {
                let place = dice.roll(5) as usize;
                let column = words[..place].iter().map(|word| word.len() + 1).sum::<usize>() + 1;
                words[place] = WORDS[dice.roll(WORDS.len() as u32) as usize];
                (format!("{} t", words.join(" ")), Some(column))
            }
            1 => (format!("{} t", words[..dice.roll(5) as usize].join(" ")), None),
            _ => (format!("{line} {}", TAILS[dice.roll(TAILS.len() as u32) as usize]), None),
        };
        let length = broken.chars().count();
        text.push(broken);
        text.push("* * * * * last".to_owned());
        let text = text.join("\n");
        let error = Cron::parse(&text).expect_err(&text).to_string();
        let place =
            error.strip_prefix(&format!("crontab line {}, column ", before + 1)).and_then(|rest| rest.split_once(':'));
        let named: usize = place.unwrap_or_else(|| panic!("{text}\n{error}")).0.parse().unwrap();
        match column {
            // The error is at the wrong part of a list, which may be further right.
            Some(column) => assert!((column..=column + 3).contains(&named), "{text}\n{error}"),
            None => assert!((1..=length + 1).contains(&named), "{text}\n{error}"),
        }
    }
}

#[test]
fn out_of_range_options_and_duplicate_entries_are_refused() {
    let entry = || one("* * * * * t");
    #[track_caller]
    fn wrong(entries: &[Cron], words: &str) {
        let error = check_all(entries).expect_err("must be refused").to_string();
        assert!(error.contains("crontab entry \"t\"") && error.contains(words), "{error}");
    }
    wrong(&[entry().max_attempts(0)], "max_attempts: 0 is outside");
    wrong(&[entry().priority(40_000)], "priority: 40000 is outside");
    wrong(&[entry().job_key("")], "job_key: has 0 characters");
    wrong(&[entry().job_key("k").job_key_mode(JobKeyMode::UnsafeDedupe)], "replace or preserve_run_at");
    wrong(&[entry().fill(CrontabFill::weeks(9999))], "ten years");
    wrong(&[entry(), entry().queue("q")], "occurs twice");
    check_all(&[entry(), entry().id("other")]).unwrap();
}

#[test]
fn the_payload_always_contains_the_time_of_the_tick() {
    let tick = "2024-01-15T10:31:00Z".parse().unwrap();
    assert_eq!(
        one("* * * * * t").job_at(tick, false).payload,
        r#"{"_cron":{"backfilled":false,"ts":"2024-01-15T10:31:00.000Z"}}"#
    );
    let payload: Value = serde_json::from_str(&one("* * * * * t {_cron:1,a:2}").job_at(tick, true).payload).unwrap();
    assert_eq!(payload, json!({"a": 2, "_cron": {"ts": "2024-01-15T10:31:00.000Z", "backfilled": true}}));
}

#[test]
fn every_valid_task_name_is_allowed_in_a_crontab() {
    for (written, name) in [
        ("mail.send", "mail.send"),
        ("Größe/v1.2:x-y", "Größe/v1.2:x-y"),
        ("\"mail.send\"", "mail.send"),
        ("\"9 to 5\"", "9 to 5"),
        (r#"'it\'s {50}% ?'"#, "it's {50}% ?"),
        (r#""\u00e9\ud83e\udd80""#, "é🦀"),
        ("\"#\"", "#"),
    ] {
        TaskName::new(name).unwrap();
        let entry = one(&format!("* * * * * {written} ?max=3 {{a:1}}"));
        assert_eq!((entry.task.as_str(), entry.identifier(), entry.spec.max_attempts), (name, name, Some(3)));
        assert_eq!(one(&format!("* * * * * {written}")).task, name);
        assert_eq!(entry.job_at(DateTime::UNIX_EPOCH, false).identifier, name);
    }
    refused("* * * * * \"a", "line 1, column 11: the task's name in quotes: the string that begins here has no end");
    refused("* * * * * 'a\\1'", "line 1, column 13: the task's name in quotes: this escape is not known");
    refused("* * * * * '\\ud800'", "line 1, column 11: the task's name in quotes: has half of a surrogate pair");
    refused("* * * * * ''", "line 1, column 11: task name: has 0 characters");
    refused("* * * * * '\\0'", "line 1, column 11: task name: contains a NUL");
    refused(&format!("* * * * * {}", "t".repeat(129)), "line 1, column 11: task name: has 129 characters");
    refused("* * * * * a;b", "line 1, column 12: expected ?options");
    refused("* * * * * *", "line 1, column 11: expected a task name");
}

#[test]
fn ids_allow_dots_and_queues_allow_percent_encoding() {
    let entry = one("* * * * * t ?id=my.task/1&queue=a.b%20c%21+%C3%A9");
    assert_eq!((entry.identifier(), entry.spec.queue_name.as_deref()), ("my.task/1", Some("a.b c! é")));
    refused("* * * * * t ?queue=a!b", "line 1, column 14: queue: \"a!b\" is not made of letters");
    refused("* * * * * t ?queue=", "line 1, column 14: queue:");
    refused("* * * * * t ?max=1&jobKey=%ff", "line 1, column 20: the bytes written with % are not UTF-8");
    refused(&format!("* * * * * t ?queue={}", "q".repeat(129)), "line 1, column 14: queue_name: has 129 characters");
}

#[test]
fn white_space_is_the_same_as_in_javascript() {
    let entries =
        Cron::parse("\u{feff}* * * * * one\r\n\u{feff}\u{a0}*\u{2003}* *\u{b}* *\u{3000}two\u{a0}{a:1}\u{feff}\r\n");
    assert_eq!(entries.unwrap().iter().map(Cron::identifier).collect::<Vec<_>>(), ["one", "two"]);
    refused("\u{feff}* * * * 8 one", "line 1, column 9: day of week");
    refused("* * * * * one\u{85}", "line 1, column 14: expected ?options");
}

#[test]
fn payload_numbers_keep_their_digits_or_are_refused() {
    let payload = |text: &str| one(&format!("* * * * * t {text}")).job_at(DateTime::UNIX_EPOCH, false).payload;
    let cron = r#","_cron":{"backfilled":false,"ts":"1970-01-01T00:00:00.000Z"}}"#;
    let digits = r#"{"b":1e400,"a":123456789012345678901234567890,"c":[1.10,-0]"#;
    assert_eq!(payload("{b:1e400,a:123456789012345678901234567890,c:[1.10,-0]}"), format!("{digits}{cron}"));
    refused("* * * * * t {a: [1, NaN]}", "line 1, column 21: the payload has NaN, which JSON does not have");
    refused("* * * * * t {ä: -Infinity}", "line 1, column 17: the payload has Infinity, which JSON does not have");
    refused(
        &format!("* * * * * t {{a:{}", "[".repeat(1_000_000)),
        "line 1, column 142: the payload nests objects and arrays",
    );
    let typed = one("* * * * * t").payload(json!({ "n": u64::MAX, "f": 0.1 })).unwrap();
    assert_eq!(
        typed.job_at(DateTime::UNIX_EPOCH, false).payload,
        format!("{{\"f\":0.1,\"n\":18446744073709551615{cron}")
    );
    assert_eq!(typed, one("* * * * * t {n: 18446744073709551615, f: .1}"));
}
