// The C++ API: conversions, ownership and exceptions. The C tests cover the behaviour of the queue.
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <graphile_worker.hpp>
#include <mutex>
#include <poll.h>
#include <thread>
#include <unistd.h>

#include "../../c/tests/check.h"

namespace gw = graphile_worker;
using namespace std::chrono_literals;

// Each test is a process with a queue of its own.
static gw::config a_config() {
  static const auto started = std::to_string(std::chrono::system_clock::now().time_since_epoch().count());
  auto config = gw::config::from_env();
  config.set("schema", "cpp_" + std::to_string(getpid()) + '_' + started).set("concurrency", 2);
  return config;
}

static gw::client a_client() {
  gw::client client{a_config()};
  client.migrate();
  return client;
}

// A field of a JSON object, as text.
static std::string field(const std::optional<std::string>& json, const std::string& name) {
  CHECK(json.has_value());
  auto at = json->find('"' + name + '"');
  CHECK(at != std::string::npos);
  at = json->find_first_not_of(" :\n", at + name.size() + 2);
  if ((*json)[at] == '"') return json->substr(at + 1, json->find('"', at + 1) - at - 1);
  return json->substr(at, json->find_first_of(",}\n", at) - at);
}

static bool has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// The error that a call must throw.
template <class Call>
static gw::error thrown(Call call) {
  try {
    call();
  } catch (const gw::error& error) {
    return error;
  }
  check_fail(__FILE__, __LINE__, "nothing was thrown");
}

#define THROWS(expected, call)                                                                          \
  do {                                                                                                  \
    const gw::error error_ = thrown([&] { call; });                                                     \
    if (error_.status() != (expected))                                                                  \
      check_fail(__FILE__, __LINE__, "%s throws %s: %s", #call, error_.status_name().data(), error_.what()); \
  } while (false)

class latch {
 public:
  void count_up() {
    const std::lock_guard guard{lock_};
    ++count_;
    changed_.notify_all();
  }
  void wait_for(int count) {
    std::unique_lock guard{lock_};
    if (!changed_.wait_for(guard, check_times_count() ? 30s : 300s, [&] { return count_ >= count; }))
      check_fail(__FILE__, __LINE__, "waited for %d, but the count is only %d", count, count_);
  }
  int count() {
    const std::lock_guard guard{lock_};
    return count_;
  }

 private:
  std::mutex lock_;
  std::condition_variable changed_;
  int count_ = 0;
};

static std::int64_t add(gw::client& client, std::string_view payload = "{}") {
  return client.add(gw::spec{"task"}.payload(payload));
}

// Runs the due jobs.
static void run_once(const std::function<void(gw::job&)>& task) {
  gw::worker worker{a_config()};
  worker.task("task", task);
  worker.run_once();
}

TEST(the_version_is_text) {
  CHECK(gw::version() == gw_version_string());
  CHECK(gw::build_info().front() == '{');
}

TEST(error_has_status_text_sqlstate_and_retryable) {
  auto config = a_config();
  const auto unknown = thrown([&] { config.set("concurency", 2); });
  CHECK_INT(unknown.status(), GW_ERR_CONFIG);
  CHECK(unknown.status_name() == "GW_ERR_CONFIG");
  CHECK_HAS(unknown.what(), "concurency");
  CHECK(unknown.sqlstate().empty());
  CHECK(!unknown.retryable());

  config.set("database_url", "postgres://postgres@127.0.0.1:1/postgres");
  const auto unreachable = thrown([&] { gw::client{config}; });
  CHECK_INT(unreachable.status(), GW_ERR_CONNECT);
  CHECK(unreachable.retryable());

  std::string url = std::getenv("DATABASE_URL");
  config.set("database_url", url.replace(url.find("postgres@"), 8, "nobody_of_that_name"));
  const auto refused = thrown([&] { gw::client{config}; });
  CHECK_INT(refused.status(), GW_ERR_AUTH);
  CHECK(refused.sqlstate() == "28000");
  const std::exception& base = refused;
  CHECK(std::string{base.what()}.size() > 5);
}

TEST(config_accepts_text_numbers_booleans_and_durations) {
  const gw::config config{{"schema", "queue"},        {"concurrency", 8},       {"max_pg_conn", 7u},
                          {"migrate", false},         {"use_local_time", true}, {"poll_interval", 250ms},
                          {"shutdown_grace_period", 2min}};
  CHECK(config.get("schema") == "queue");
  CHECK(config.get("concurrency") == "8");
  CHECK(config.get("max_pg_conn") == "7");
  CHECK(config.get("migrate") == "false");
  CHECK(config.get("use_local_time") == "true");
  CHECK(config.get("poll_interval") == "250ms");
  CHECK(config.get("shutdown_grace_period") == "120000ms");
  CHECK(config.get("database_url") == std::nullopt);
  THROWS(GW_ERR_CONFIG, (void)config.get("no such key"));
}

TEST(all_keys_are_listed_with_descriptions) {
  const auto keys = gw::config::keys();
  CHECK(keys.size() >= 34);
  for (const auto key : keys) CHECK(gw::config::info(key).value().front() == '{');
  CHECK(gw::config::info("no such key") == std::nullopt);
}

TEST(text_with_a_nul_inside_is_refused) {
  using namespace std::string_view_literals;
  auto client = a_client();
  THROWS(GW_ERR_UTF8, gw::spec{"task\0more"sv});
  THROWS(GW_ERR_UTF8, client.remove("key\0more"sv));
  THROWS(GW_ERR_UTF8, client.add(gw::spec{"task"}.payload("{}\0"sv)));
}

TEST(spec_sets_all_fields_of_a_job) {
  auto client = a_client();
  const auto time = gw::time_point{std::chrono::seconds{1924995845}};
  auto spec = gw::spec{"task"}.payload(R"({"a": 1})").queue("q").run_at(time).max_attempts(3).priority(-5).key("k").flag("f");
  spec.traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  spec.check();
  const auto job = client.job(client.add(spec));
  CHECK(field(job, "task_identifier") == "task");
  CHECK(field(job, "queue_name") == "q");
  CHECK(field(job, "run_at") == "2031-01-01T01:04:05Z");
  CHECK(field(job, "max_attempts") == "3");
  CHECK(field(job, "priority") == "-5");
  CHECK(field(job, "key") == "k");
  CHECK(has(*job, "\"f\""));
  CHECK(has(*job, "0af7651916cd43dd8448eb211c80319c"));
}

TEST(an_empty_string_view_is_a_text_and_not_a_missing_argument) {
  gw::spec spec{"task"};
  THROWS(GW_ERR_JSON, spec.payload({}));
  try {
    gw::spec{"task"}.payload("{\n oops}");
    CHECK(!"a payload that is no JSON is refused");
  } catch (const gw::error& error) {
    CHECK_HAS(error.what(), "payload: is not JSON (line 2, column 2)");
  }
}

TEST(many_jobs_are_added_at_once) {
  auto client = a_client();
  std::vector<gw::spec> specs;
  for (int i = 0; i < 3; ++i) specs.push_back(gw::spec{"task"}.payload(std::to_string(i)));
  const auto ids = client.add_all(specs);
  CHECK_INT(ids.size(), 3);
  CHECK(field(client.job(ids[2]), "payload") == "2");
  CHECK(client.add_all(std::vector<gw::spec>{}).empty());
}

TEST(client_lists_and_changes_jobs) {
  auto client = a_client();
  const auto one = add(client, "1"), two = add(client, "2"), three = add(client, "3");
  client.check(5s);
  client.add(gw::spec{"task"}.key("k").run_at(std::chrono::system_clock::now() + 1h));
  CHECK(client.remove("k"));
  CHECK(!client.remove("k"));
  CHECK(has(client.list(), "\"payload\""));
  CHECK(field(client.list(R"({"limit": 1, "offset": 2})"), "id") == std::to_string(three));
  CHECK(has(client.complete({one}), std::to_string(one)));
  CHECK(client.job(one) == std::nullopt);
  client.fail({two}, "gave up");
  CHECK(field(client.job(two), "last_error") == "gave up");
  client.reschedule({three}, R"({"run_at": "2031-01-01T01:04:05Z"})");
  CHECK(field(client.stats(), "scheduled") == "1");
  client.cleanup(gw::cleanup_task::delete_permafailed | gw::cleanup_task::gc_tasks | gw::cleanup_task::gc_queues);
  CHECK(client.job(two) == std::nullopt);
  CHECK(client.queues().front() == '[');
  CHECK(client.locked_workers().front() == '[');
  CHECK(client.active_workers(1min).front() == '[');
  CHECK(!client.force_unlock({"nobody"}).empty());
  CHECK(!client.sweep_stale_workers().empty());
}

TEST(sql_add_job_supports_every_style) {
  CHECK(has(gw::sql_add_job(), "$9"));
  CHECK(has(gw::sql_add_job(gw::sql_style::format), "%s"));
  CHECK(has(gw::sql_add_job(gw::sql_style::named), ":job_key_mode"));
  CHECK(has(gw::sql_add_job(gw::sql_style::pyformat), "%(job_key_mode)s"));
  CHECK(has(gw::sql_add_job(gw::sql_style::dollar, "my queue"), "\"my queue\""));
}

TEST(task_can_read_its_job) {
  auto client = a_client();
  const auto id = client.add(gw::spec{"task"}.payload(R"({"a": 1})").key("k").max_attempts(7).priority(-3));
  latch ran;
  run_once([&](gw::job& job) {
    CHECK_INT(job.id(), id);
    CHECK(job.task() == "task");
    CHECK(job.key() == "k");
    CHECK(job.payload() == R"({"a": 1})");
    CHECK_INT(job.attempts(), 1);
    CHECK_INT(job.max_attempts(), 7);
    CHECK_INT(job.priority(), -3);
    CHECK_INT(job.revision(), 0);
    CHECK(job.created_at() > std::chrono::system_clock::now() - 1min);
    CHECK(job.run_at() <= std::chrono::system_clock::now() + 1min);
    CHECK(field(job.json(), "id") == std::to_string(id));
    CHECK(job.traceparent() == std::nullopt);
    CHECK(!job.worker_id().empty());
    CHECK(!job.is_cancelled());
    ran.count_up();
  });
  CHECK_INT(ran.count(), 1);
  CHECK(client.job(id) == std::nullopt);
}

static void exception_is_the_last_error(const std::function<void(gw::job&)>& task, const std::string& expected) {
  auto client = a_client();
  const auto id = add(client);
  run_once(task);
  CHECK_TEXT(field(client.job(id), "last_error").c_str(), expected.c_str());
  CHECK(field(client.job(id), "attempts") == "1");
}

TEST(an_exception_fails_the_attempt_with_its_text) {
  exception_is_the_last_error([](gw::job&) { throw std::runtime_error{"no luck"}; }, "no luck");
}

TEST(thrown_value_that_is_not_an_exception_fails_the_attempt) {
  exception_is_the_last_error([](gw::job&) { throw 42; }, "an exception that is no std::exception");
}

TEST(rethrown_library_error_fails_the_attempt) {
  exception_is_the_last_error([](gw::job&) { throw gw::error{GW_ERR_CONNECT, "the other queue is away"}; },
                              "the other queue is away");
}

TEST(task_can_snooze_or_set_the_retry_delay) {
  auto client = a_client();
  const auto id = add(client);
  run_once([](gw::job& job) { job.snooze(1h); });
  CHECK(field(client.job(id), "attempts") == "0");
  CHECK(field(client.job(id), "state") == "scheduled");
  client.reschedule({id}, R"({"run_at": "now"})");
  run_once([](gw::job& job) {
    job.retry_after(24h);
    throw std::runtime_error{"later"};
  });
  CHECK(field(client.job(id), "last_error") == "later");
}

TEST(a_task_adds_jobs_through_the_client_of_its_job) {
  auto client = a_client();
  add(client, "1");
  latch ran;
  gw::worker worker{a_config()};
  worker.task("task", [](gw::job& job) { job.client().add(gw::spec{"next"}.payload(job.payload())); });
  worker.task("next", [&](gw::job& job) {
    CHECK(job.payload() == "1");
    ran.count_up();
  });
  worker.start();
  ran.wait_for(1);
  worker.stop();
  worker.wait();
}

TEST(batch_retry_keeps_only_failed_items) {
  auto client = a_client();
  const auto id = add(client, "[1, 2, 3]");
  gw::worker worker{a_config()};
  worker.batch_task("task", [](gw::job&) { return gw::item_results{std::nullopt, "no such address", std::nullopt}; });
  worker.run_once();
  CHECK(field(client.job(id), "payload") == "[2]");
  CHECK(has(field(client.job(id), "last_error"), "no such address"));
}

TEST(an_exception_fails_a_whole_batch) {
  auto client = a_client();
  const auto id = add(client, "[1, 2, 3]");
  gw::worker worker{a_config()};
  worker.batch_task("task", [](gw::job&) -> gw::item_results { throw std::runtime_error{"the post is on strike"}; });
  worker.run_once();
  CHECK(field(client.job(id), "last_error") == "the post is on strike");
}

TEST(a_deferred_job_is_finished_by_another_thread) {
  auto client = a_client();
  const auto done = add(client, "1"), failed = add(client, "2");
  std::vector<std::thread> threads;
  gw::worker worker{a_config()};
  latch sent;
  std::mutex lock;
  worker.task("task", [&](gw::job& job) {
    const std::lock_guard guard{lock};
    threads.emplace_back([pending = job.defer()]() mutable {
      if (pending.payload() == "1") pending.complete();
      else pending.fail("refused");
    });
    sent.count_up();
  });
  worker.start();
  sent.wait_for(2);
  for (auto& thread : threads) thread.join();
  CHECK(worker.flush(30s));
  CHECK(client.job(done) == std::nullopt);
  CHECK(field(client.job(failed), "last_error") == "refused");
  worker.stop();
  worker.wait();
}

TEST(a_deferred_job_that_is_destroyed_unfinished_fails) {
  exception_is_the_last_error([](gw::job& job) { const auto pending = job.defer(); }, "handle dropped without a result");
}

TEST(exception_after_defer_fails_the_job) {
  auto client = a_client();
  const auto id = add(client);
  gw::pending_job pending;
  run_once([&](gw::job& job) {
    pending = job.defer();
    throw std::runtime_error{"changed my mind"};
  });
  CHECK(field(client.job(id), "last_error") == "changed my mind");
  const auto late = thrown([&] { pending.complete(); });
  CHECK(late.status() == GW_ERR_ALREADY_FINISHED || late.status() == GW_ERR_CLOSED);
}

TEST(a_second_outcome_throws) {
  auto client = a_client();
  add(client);
  gw::pending_job pending, other;
  gw::worker worker{a_config()};
  latch sent;
  worker.task("task", [&](gw::job& job) {
    pending = job.defer();
    sent.count_up();
  });
  worker.start();
  sent.wait_for(1);
  other = pending.retain();
  pending.complete();
  THROWS(GW_ERR_ALREADY_FINISHED, other.fail("too late"));
  worker.stop();
  worker.wait();
}

TEST(moved_from_handle_throws) {
  auto client = a_client();
  auto moved_to = std::move(client);
  moved_to.check();
  THROWS(GW_ERR_INVALID, client.check());
  gw::worker worker{a_config()};
  auto worker_moved_to = std::move(worker);
  THROWS(GW_ERR_INVALID, worker.run());
  THROWS(GW_ERR_INVALID, worker.task("task", [](gw::job&) {}));
  worker.stop();
  CHECK_INT(worker.fd(), -1);
  CHECK(worker.id() == std::nullopt);
  gw::pending_job none;
  CHECK(!none);
  CHECK_INT(none.id(), 0);
  CHECK(none.task().empty() && none.payload().empty());
  THROWS(GW_ERR_INVALID, none.complete());
  THROWS(GW_ERR_HANDLE, (void)none.retain());
}

// Counts its living copies.
struct token {
  explicit token(std::atomic<int>& alive) : alive_(&alive) { ++*alive_; }
  token(const token& other) : alive_(other.alive_) { ++*alive_; }
  token& operator=(const token&) = delete;
  ~token() { --*alive_; }
  std::atomic<int>* alive_;
};

TEST(functions_are_destroyed_with_the_worker_or_when_refused) {
  a_client();
  std::atomic<int> alive{0};
  {
    gw::worker worker{a_config()};
    worker.task("task", [t = token{alive}](gw::job&) {});
    worker.on("JobComplete", [t = token{alive}](const gw::event&) {});
    worker.intercept("BeforeJobRun", [t = token{alive}](const gw::event&) { return gw::decision::proceed(); });
    CHECK_INT(alive, 3);
    THROWS(GW_ERR_CONFIG, worker.on("NoSuchEvent", [t = token{alive}](const gw::event&) {}));
    THROWS(GW_ERR_UTF8, worker.task(std::string_view{"a\0b", 3}, [t = token{alive}](gw::job&) {}));
    THROWS(GW_ERR_UTF8, worker.task("\xff", [t = token{alive}](gw::job&) {}));
    THROWS(GW_ERR_INVALID, worker.task("empty", std::function<void(gw::job&)>{}));
    CHECK_INT(alive, 3);
    worker.run_once();
    CHECK_INT(alive, 3);
  }
  CHECK_INT(alive, 0);
}

TEST(task_options_are_set_with_the_task) {
  auto client = a_client();
  const auto id = add(client);
  gw::worker worker{a_config()};
  const auto until_cancelled = [](gw::job& job) {
    while (!job.is_cancelled()) std::this_thread::sleep_for(1ms);
    throw std::runtime_error{"cancelled"};
  };
  worker.task("task", until_cancelled, {{"timeout", 50ms}, {"backoff", "fixed 6h"}});
  THROWS(GW_ERR_CONFIG, worker.task_option("task", "colour", "red"));
  worker.run_once();
  CHECK_INT(worker.stats().timed_out, 1);
  CHECK(field(client.job(id), "attempts") == "1");
}

TEST(worker_reports_state_id_and_stats) {
  auto client = a_client();
  add(client);
  gw::worker worker{a_config()};
  latch ran;
  worker.task("task", [&](gw::job&) { ran.count_up(); });
  CHECK(worker.state() == gw::worker_state::fresh);
  CHECK(worker.id() == std::nullopt);
  THROWS(GW_ERR_STATE, (void)worker.client());
  worker.start();
  ran.wait_for(1);
  CHECK(worker.state() == gw::worker_state::running);
  CHECK(!worker.id().value().empty());
  worker.client().check();
  CHECK(worker.flush(30s));
  CHECK(!worker.wait(0ms));
  CHECK(!worker.wait(-5s));  // A negative timeout must not wait without limit.
  CHECK_INT(worker.stats().completed, 1);
  CHECK(field(worker.stats_json(), "completed") == "1");
  worker.stop();
  CHECK(worker.wait(30s));
  CHECK(worker.state() == gw::worker_state::stopped);
}

TEST(a_worker_that_goes_out_of_scope_ends) {
  auto client = a_client();
  add(client);
  latch started, ended;
  {
    gw::worker worker{a_config()};
    worker.task("task", [&](gw::job& job) {
      started.count_up();
      while (!job.is_cancelled()) std::this_thread::sleep_for(1ms);
      ended.count_up();
    });
    worker.start();
    started.wait_for(1);
  }
  CHECK_INT(ended.count(), 1);
}

TEST(waiting_within_a_task_throws_instead_of_hanging) {
  auto client = a_client();
  add(client);
  gw::worker worker{a_config()};
  latch completed;
  worker.task("task", [&](gw::job&) {
    THROWS(GW_ERR_DEADLOCK, worker.wait());
    completed.count_up();
  });
  worker.run_once();
  CHECK_INT(completed.count(), 1);
}

TEST(jobs_are_pulled_one_by_one_and_in_batches) {
  auto client = a_client();
  for (int i = 0; i < 5; ++i) add(client);
  auto config = a_config();
  config.set("concurrency", 4);
  gw::worker worker{config};
  worker.pulled_task("task", {{"timeout", 1h}});
  worker.start();
  auto first = worker.next();
  CHECK(bool(first));
  CHECK(first->task() == "task");
  first->complete();
  std::size_t done = 1;
  while (done < 5) {
    auto batch = worker.next_batch(3);
    CHECK_INT(batch.status, GW_OK);
    for (auto& job : *batch) job.complete(), ++done;
  }
  CHECK_INT(done, 5);
  CHECK_INT(worker.next(0ms).status, GW_TIMEOUT);
  CHECK_INT(worker.next_batch(3, 0ms).status, GW_TIMEOUT);
  worker.wakeup();
  CHECK_INT(worker.next().status, GW_WOKEN);
  pollfd ready{worker.fd(), POLLIN, 0};
  worker.stop();
  CHECK_INT(poll(&ready, 1, 20000), 1);
  CHECK_INT(worker.next().status, GW_STOPPED);
  worker.wait();
}

TEST(events_are_observed_and_pulled) {
  auto client = a_client();
  const auto id = add(client);
  CHECK(gw::event::names().size() >= 25);
  gw::worker worker{a_config()};
  latch seen;
  worker.task("task", [](gw::job&) {});
  worker.queue_events("JobComplete").on("JobStart", [&](const gw::event& event) {
    CHECK(event.name() == "JobStart");
    CHECK_INT(event.job_id(), id);
    CHECK(event.json().front() == '{');
    seen.count_up();
  });
  worker.start();
  seen.wait_for(1);
  const auto event = worker.next_event();
  CHECK_INT(event.status, GW_OK);
  CHECK(event.value.name() == "JobComplete");
  CHECK_INT(worker.next_event(0ms).status, GW_TIMEOUT);
  CHECK(worker.event_fd() >= 0);
  worker.stop();
  CHECK_INT(worker.next_event().status, GW_STOPPED);
  worker.wait();
}

TEST(exception_of_an_observer_changes_nothing) {
  auto client = a_client();
  const auto id = add(client);
  gw::worker worker{a_config()};
  worker.task("task", [](gw::job&) {});
  worker.on("JobComplete", [](const gw::event&) { throw std::runtime_error{"to stderr"}; });
  worker.run_once();
  CHECK(client.job(id) == std::nullopt);
}

// Returns a job after a run with an interceptor of BeforeJobRun.
static std::optional<std::string> intercepted(gw::client& client, const std::function<gw::decision(const gw::event&)>& decide) {
  const auto id = add(client);
  gw::worker worker{a_config()};
  worker.task("task", [](gw::job&) { throw std::runtime_error{"it ran"}; });
  worker.intercept("BeforeJobRun", decide);
  worker.run_once();
  return client.job(id);
}

TEST(interceptor_decides_about_a_run) {
  auto client = a_client();
  CHECK(field(intercepted(client, [](const gw::event&) { return gw::decision::proceed(); }), "last_error") == "it ran");
  CHECK(field(intercepted(client, [](const gw::event&) { return gw::decision::fail("no"); }), "last_error") == "no");
  CHECK(intercepted(client, [](const gw::event&) { return gw::decision::skip(); }) == std::nullopt);
}

TEST(an_interceptor_that_throws_fails_the_attempt) {
  auto client = a_client();
  const auto job = intercepted(client, [](const gw::event&) -> gw::decision { throw std::runtime_error{"confused"}; });
  CHECK(field(job, "attempts") == "1");
  CHECK(field(job, "last_error") != "it ran");
}

TEST(interceptor_decides_about_an_added_job) {
  a_client();
  gw::worker worker{a_config()};
  worker.task("task", [](gw::job&) {});
  worker.intercept("BeforeJobSchedule", [](const gw::event& event) {
    if (has(event.json(), "\"leave out\"")) return gw::decision::skip();
    if (has(event.json(), "\"refuse\"")) return gw::decision::fail("quota exceeded");
    return gw::decision::payload(R"({"b": 2})");
  });
  worker.start();
  auto client = worker.client();
  const auto later = std::chrono::system_clock::now() + 1h;
  THROWS(GW_ERR_SKIPPED, client.add(gw::spec{"task"}.payload(R"("leave out")")));
  const auto refused = thrown([&] { client.add(gw::spec{"task"}.payload(R"("refuse")")); });
  CHECK_INT(refused.status(), GW_ERR_REFUSED);
  CHECK_HAS(refused.what(), "quota exceeded");
  CHECK(has(*client.job(client.add(gw::spec{"task"}.payload("1").run_at(later))), "\"b\""));
  worker.stop();
  worker.wait();
}

TEST(crontab_preview_and_error_position) {
  const gw::crontab crontab{"0 8 * * 1 report ?id=weekly\n* * * * * poll"};
  CHECK_INT(crontab.size(), 2);
  CHECK(field(crontab.item(0), "identifier") == "weekly");
  CHECK(crontab.item(2) == std::nullopt);
  const auto times = crontab.next(0, gw::time_point{std::chrono::seconds{1763974800}}, 2);
  CHECK_INT(times.size(), 2);
  CHECK(times[0] == gw::time_point{std::chrono::seconds{1764576000}});
  CHECK(times[1] - times[0] == 7 * 24h);
  gw::worker worker{a_config()};
  worker.crontab("0 8 * * 1 report");
  THROWS(GW_ERR_CRONTAB, worker.crontab("0 25 * * * report"));
  CHECK_HAS(thrown([] { gw::crontab{"0 25 * * * report"}; }).what(), "column 3");
}

TEST(log_goes_to_the_sink_until_it_is_removed) {
  auto client = a_client();
  add(client);
  std::atomic<int> lines{0}, alive{0};
  gw::log_to(
      [&lines, t = token{alive}](const gw::log_record& line) {
        CHECK(line.level <= gw::log_level::debug);
        CHECK(!line.message.empty() && line.fields.front() == '{');
        CHECK(line.time > std::chrono::system_clock::now() - 5min);
        ++lines;
        throw std::runtime_error{"dropped"};
      },
      gw::log_level::debug);
  run_once([](gw::job&) {});
  gw::log_to_stderr(gw::log_level::off);
  CHECK(lines > 0);
  CHECK_INT(alive, 0);
  THROWS(GW_ERR_INVALID, gw::log_to(nullptr));
  gw::queue_log();
  run_once([](gw::job&) {});
  CHECK_INT(gw::next_log(10s).status, GW_OK);
  gw::log_to_stderr(gw::log_level::off);
  CHECK_INT(gw::next_log(0ms).status, GW_STOPPED);
}
