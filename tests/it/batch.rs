//! Batch jobs: one job with a list of items. A retry runs only the failed items.

use crate::harness::TestDb;
use graphile_worker::{
    BatchTaskHandler, BatchTaskResult, BeforeJobSchedule, ErrorKind, HookRegistry, IntoBatchTaskHandlerResult,
    IntoTaskHandlerResult, JobDefinition, JobScheduleResult, JobSpec, TaskHandler, WorkerContext,
};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};

/// An item that carries its own outcome.
#[derive(Serialize, Deserialize)]
struct Item {
    id: i32,
    fail: bool,
}

type Seen = Arc<Mutex<Vec<Vec<i32>>>>;

impl BatchTaskHandler for Item {
    const IDENTIFIER: &'static str = "items";

    fn run_batch(items: Vec<Self>, ctx: WorkerContext) -> impl IntoBatchTaskHandlerResult {
        let seen: &Seen = ctx.get_ext().expect("the test adds one");
        seen.lock().unwrap().push(items.iter().map(|item| item.id).collect());
        let end = |item: Item| if item.fail { Err(format!("item {} broke", item.id)) } else { Ok(()) };
        items.into_iter().map(end).collect::<Vec<_>>()
    }
}

/// Runs all due jobs of `Item` and returns the ids that each run received.
fn run(db: &TestDb) -> Vec<Vec<i32>> {
    let seen = Seen::default();
    db.worker().define_batch_job::<Item>().add_extension(seen.clone()).init().unwrap().run_once().unwrap();
    std::mem::take(&mut *seen.lock().unwrap())
}

const ROW: &str = "select concat_ws('|', attempts, payload, last_error) from graphile_worker._private_jobs";

#[test]
fn a_batch_whose_items_all_succeed_is_done() {
    let db = TestDb::new();
    let items = vec![Item { id: 1, fail: false }, Item { id: 2, fail: false }];
    db.utils().add_batch_job(items, JobSpec::new()).unwrap();
    assert_eq!(run(&db), [[1, 2]]);
    assert_eq!(db.jobs(), 0);
}

#[test]
fn only_failed_items_are_retried_with_their_bytes_unchanged() {
    let db = TestDb::new();
    db.add(r#"'items', '[{"id": 1, "fail":false}, {"fail" :true,"id": 2, "odd": 1.10}, {"id":3,"fail":true}]'"#);
    run(&db);
    let left = r#"1|[{"fail" :true,"id": 2, "odd": 1.10},{"id":3,"fail":true}]|2 of 3 batch items failed: 1: item 2 broke, 2: item 3 broke"#;
    assert_eq!(db.one::<String>(ROW), left);
    db.execute("update graphile_worker._private_jobs set run_at = now()");
    assert_eq!(run(&db), [[2, 3]]);
}

#[test]
fn the_last_attempt_leaves_a_failed_job_with_the_failed_items() {
    let db = TestDb::new();
    db.add(r#"'items', '[{"id":1,"fail":false},{"id":2,"fail":true}]', max_attempts => 1, queue_name => 'q'"#);
    run(&db);
    assert_eq!(
        db.one::<String>("select payload::text from graphile_worker._private_jobs where not is_available"),
        r#"[{"id":2,"fail":true}]"#
    );
    assert_eq!(db.locks(), 0);
}

/// Runs one batch of three items with this result and returns the job's row.
fn ends_with(result: impl IntoBatchTaskHandlerResult) -> String {
    #[derive(Serialize, Deserialize)]
    struct Number(i32);
    impl BatchTaskHandler for Number {
        const IDENTIFIER: &'static str = "numbers";
        fn run_batch(_: Vec<Self>, ctx: WorkerContext) -> impl IntoBatchTaskHandlerResult {
            ctx.get_ext::<BatchTaskResult>().expect("the test adds one").clone()
        }
    }
    let db = TestDb::new();
    db.utils().add_batch_job(vec![Number(1), Number(2), Number(3)], JobSpec::new()).unwrap();
    let options = db.worker().define_jobs([Number::definition()]).add_extension(result.into_batch_result());
    options.init().unwrap().run_once().unwrap();
    db.all::<String>(ROW).pop().unwrap_or_default()
}

#[test]
fn a_wrong_number_of_results_fails_all_items() {
    assert_eq!(ends_with(vec![Ok::<(), String>(())]), "1|[1,2,3]|the batch handler returned 1 results for 3 items");
}

#[test]
fn a_batch_that_fails_as_a_whole_keeps_its_payload() {
    assert_eq!(ends_with(Err::<(), _>("no gateway")), "1|[1,2,3]|no gateway");
    assert_eq!(ends_with(BatchTaskResult::Failed("no gateway".into())), "1|[1,2,3]|no gateway");
    assert_eq!(ends_with(()), "");
}

#[test]
fn a_payload_that_is_no_list_fails_and_is_not_shown() {
    let db = TestDb::new();
    db.add(r#"'items', '{"secret": 1}', queue_name => 'q'"#);
    assert_eq!(run(&db), Vec::<Vec<i32>>::new());
    assert_eq!(
        db.one::<String>(ROW),
        r#"1|{"secret": 1}|the payload of a job of batch task items must be a JSON array"#
    );
    db.execute(
        r#"update graphile_worker._private_jobs set run_at = now(), payload = '[{"id":1,"fail":false},"s3cret"]'"#,
    );
    assert_eq!(run(&db), Vec::<Vec<i32>>::new());
    let error: String = db.one("select last_error from graphile_worker._private_jobs");
    assert!(error.contains("does not fit task items") && !error.contains("s3cret"), "{error}");
}

#[test]
fn an_empty_batch_is_refused_before_anything_is_sent() {
    let db = TestDb::new();
    let error = db.utils().add_batch_job(Vec::<Item>::new(), JobSpec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(error.to_string(), "items of batch task items: empty; give at least one");
    let mut client = db.client();
    assert!(db.utils().with_executor(&mut client).add_batch_job(Vec::<Item>::new(), JobSpec::new()).is_err());
    // A hook cannot empty a batch either.
    let mut hooks = HookRegistry::new();
    hooks.on(BeforeJobSchedule, |_| JobScheduleResult::Continue(serde_json::json!([])));
    let utils = db.utils().with_hooks(hooks.into());
    let error = utils.add_batch_job(vec![Item { id: 1, fail: false }], JobSpec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::JobScheduleFailed);
    assert_eq!(db.jobs(), 0);
}

#[test]
fn failed_items_of_a_superseded_batch_are_not_revived() {
    #[derive(Serialize, Deserialize)]
    struct Letter(char);
    impl BatchTaskHandler for Letter {
        const IDENTIFIER: &'static str = "letters";
        fn run_batch(items: Vec<Self>, ctx: WorkerContext) -> impl IntoBatchTaskHandlerResult {
            if items.len() == 2 {
                ctx.add_batch_job(vec![Letter('c')], JobSpec::new().job_key("k")).expect("adding the batch again");
            }
            items.iter().map(|item| if item.0 == 'b' { Err("lost its place") } else { Ok(()) }).collect::<Vec<_>>()
        }
    }
    let db = TestDb::new();
    db.utils().add_batch_job(vec![Letter('a'), Letter('b')], JobSpec::new().job_key("k")).unwrap();
    db.worker().define_batch_job::<Letter>().init().unwrap().run_once().unwrap();
    let left = "select concat_ws('|', payload, is_available, key, last_error) from graphile_worker._private_jobs";
    assert_eq!(db.one::<String>(left), r#"["b"]|f|1 of 2 batch items failed: 1: lost its place"#);
}

#[test]
fn handlers_add_batches_and_definitions_register_many_tasks_at_once() {
    #[derive(Serialize, Deserialize)]
    struct Parent {}
    impl TaskHandler for Parent {
        const IDENTIFIER: &'static str = "parent";
        fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
            ctx.add_batch_job(vec![Item { id: 7, fail: false }], JobSpec::new()).map(drop)
        }
    }
    let db = TestDb::new();
    db.utils().add_job(Parent {}, JobSpec::new()).unwrap();
    let definitions = [JobDefinition::of::<Parent>(), JobDefinition::of_batch::<Item>()];
    assert_eq!(definitions.each_ref().map(JobDefinition::identifier), ["parent", "items"]);
    let seen = Seen::default();
    db.worker().define_jobs(definitions).add_extension(seen.clone()).init().unwrap().run_once().unwrap();
    assert_eq!(*seen.lock().unwrap(), [[7]]);
}
