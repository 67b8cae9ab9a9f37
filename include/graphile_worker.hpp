/// graphile_worker.hpp: the C++17 API of libgraphile_worker, header only.
/// Converts between C++ and graphile_worker.h; the C library does everything else.
///
/// Rules for all functions:
/// - A failed call throws graphile_worker::error. If a thing does not exist, the result is an empty optional or `false`.
/// - Handles (config, spec, client, worker, pending_job, event, crontab) are move-only and free themselves. A call on a
///   handle that was moved from throws error with GW_ERR_INVALID.
/// - Handles are thread-safe, except that no thread may move or destroy one while another thread uses it.
/// - Text is UTF-8. A std::string_view result is valid as long as the handle that it was read from.
/// - Durations are std::chrono's. A negative timeout counts as zero. The overload without a timeout waits without limit.
/// - The library may call your functions on any thread, several at once. It destroys them when it no longer needs them,
///   also on any thread. No exception leaves them; each function documents the effect of an exception.
///
/// ```cpp
/// namespace gw = graphile_worker;
/// auto config = gw::config::from_env();                        // DATABASE_URL
/// gw::client{config}.add(gw::spec{"hello"}.payload(R"({"name": "Ada"})"));
/// gw::worker worker{config};
/// worker.task("hello", [](gw::job& job) { std::cout << job.payload() << '\n'; });
/// worker.run_once();
/// ```
#ifndef GRAPHILE_WORKER_HPP
#define GRAPHILE_WORKER_HPP

#include "graphile_worker.h"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#if GW_ABI_VERSION != 1
#error "graphile_worker.hpp and graphile_worker.h belong to different versions; install both from the same package"
#endif

namespace graphile_worker {

/// A time as the database has it: microseconds since the Unix epoch (UTC). It is comparable with system_clock::now().
using time_point = std::chrono::time_point<std::chrono::system_clock, std::chrono::microseconds>;

/// An error of the library: `what()` has the cause and what to do next.
class error : public std::runtime_error {
 public:
  /// Makes an error. `sqlstate` is empty if the error does not come from the database.
  error(gw_status_t status, const std::string& message, std::string_view sqlstate = {}, bool retryable = false)
      : std::runtime_error(message), status_(status), retryable_(retryable) {
    sqlstate.copy(sqlstate_.data(), sqlstate_.size() - 1);
  }

  /// One of GW_ERR_*.
  gw_status_t status() const noexcept { return status_; }
  /// The status as text: `GW_ERR_CONNECT`. Static text.
  std::string_view status_name() const noexcept { return gw_status_name(status_); }
  /// PostgreSQL's SQLSTATE, five characters; empty if the error does not come from the database. Valid as long as the error.
  std::string_view sqlstate() const noexcept { return sqlstate_.data(); }
  /// Whether the same call may succeed later: after a lost connection or a serialization failure.
  bool retryable() const noexcept { return retryable_; }

 private:
  gw_status_t status_;
  bool retryable_;
  std::array<char, 6> sqlstate_{};
};

/// Conversions. Not for callers.
namespace detail {

[[noreturn]] inline void raise(gw_status_t status, gw_error_t* cause) {
  const std::unique_ptr<gw_error_t, void (*)(gw_error_t*)> owned{cause, gw_error_free};
  if (!cause) throw error{status, gw_status_text(status)};
  const char* sqlstate = gw_error_sqlstate(cause);
  throw error{status, gw_error_message(cause), sqlstate ? sqlstate : "", gw_error_is_retryable(cause)};
}

/// Throws if a function without an error object failed.
inline void check(gw_status_t status) {
  if (status < 0) raise(status, nullptr);
}

/// Calls a function whose last parameter is the error object. Throws its error; otherwise returns the status.
template <class... Parameters, class... Arguments>
gw_status_t call(gw_status_t (*function)(Parameters...), Arguments... arguments) {
  gw_error_t* cause = nullptr;
  const gw_status_t status = function(arguments..., &cause);
  if (status < 0) raise(status, cause);
  return status;
}

/// A text that ends with NUL. A text with a NUL inside would be truncated, so the constructor throws.
class text {
 public:
  explicit text(std::string_view from) : text_(from) {
    if (text_.find('\0') != std::string::npos) throw error{GW_ERR_UTF8, "text holds a NUL character: " + text_};
  }
  const char* c_str() const noexcept { return text_.c_str(); }

 private:
  std::string text_;
};

inline std::string_view view(const char* borrowed) noexcept { return borrowed ? borrowed : std::string_view{}; }

inline std::optional<std::string_view> optional_view(const char* borrowed) {
  return borrowed ? std::optional<std::string_view>{borrowed} : std::nullopt;
}

inline std::optional<std::string> take_optional(char* owned) {
  const std::unique_ptr<char, void (*)(char*)> freed{owned, gw_string_free};
  return owned ? std::optional<std::string>{owned} : std::nullopt;
}

inline std::string take(char* owned) { return take_optional(owned).value_or(std::string{}); }

inline std::int64_t to_ms(std::chrono::milliseconds timeout) noexcept { return timeout.count() < 0 ? 0 : timeout.count(); }

/// A time_point from a time of any precision, rounded down.
template <class Duration>
time_point to_time(std::chrono::time_point<std::chrono::system_clock, Duration> time) noexcept {
  return std::chrono::floor<std::chrono::microseconds>(time);
}

inline std::int64_t to_us(time_point time) noexcept { return time.time_since_epoch().count(); }

inline time_point from_us(std::int64_t us) noexcept { return time_point{std::chrono::microseconds{us}}; }

/// Frees owned handles, but not borrowed ones.
template <class T, void (*Free)(T*)>
struct deleter {
  bool owned = true;
  void operator()(T* handle) const noexcept {
    if (owned) Free(handle);
  }
};

template <class T, void (*Free)(T*)>
using handle = std::unique_ptr<T, deleter<T, Free>>;

/// The gw_free_fn of a boxed function.
template <class Function>
void destroy(void* boxed) noexcept {
  delete static_cast<Function*>(boxed);
}

template <class Function>
Function& unbox(void* boxed) noexcept {
  return *static_cast<Function*>(boxed);
}

/// The text of the current exception.
inline std::string caught() noexcept {
  try {
    throw;
  } catch (const std::exception& exception) {
    return exception.what();
  } catch (...) {
    return "an exception that is no std::exception";
  }
}

}  // namespace detail

/// The version of the loaded library, as text: `0.1.0`. Static text.
inline std::string_view version() noexcept { return gw_version_string(); }

/// Build information, as a JSON object. Static text.
inline std::string_view build_info() noexcept { return gw_build_info(); }

/// The value of a config key or a task option: text, a number, `true`/`false`, or a duration, which is rounded up to
/// whole milliseconds.
class value {
 public:
  value(const char* text) : text_(text) {}
  value(std::string_view text) : text_(text) {}
  value(std::string text) : text_(std::move(text)) {}
  template <class T, std::enable_if_t<std::is_same_v<T, bool>, int> = 0>
  value(T yes) : text_(yes ? "true" : "false") {}
  template <class T, std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool>, int> = 0>
  value(T number) : text_(std::to_string(number)) {}
  template <class Rep, class Period>
  value(std::chrono::duration<Rep, Period> time)
      : text_(std::to_string(std::chrono::ceil<std::chrono::milliseconds>(time).count()) + "ms") {}

  const std::string& text() const noexcept { return text_; }

 private:
  std::string text_;
};

/// Keys with values, for config and worker::task: `{{"concurrency", 4}, {"poll_interval", 250ms}}`.
using options = std::initializer_list<std::pair<std::string_view, value>>;

/// The configuration of clients and workers. Their constructors copy it; later changes have no effect on them.
///
/// ```cpp
/// config settings{{"database_url", "postgres:///app"}, {"concurrency", 8}, {"poll_interval", 250ms}};
/// ```
class config {
 public:
  /// No key is set. Each has its default; `database_url` has none. Throws error with GW_ERR_ABI if library and header do not
  /// fit together, and with GW_ERR_NOMEM if no handles are left.
  config() : handle_(gw_config_new()) {
    if (gw_abi_version() != GW_ABI_VERSION) {
      throw error{GW_ERR_ABI, "libgraphile_worker has ABI version " + std::to_string(gw_abi_version()) +
                                  ", this program was compiled for " + std::to_string(GW_ABI_VERSION)};
    }
    if (!handle_) throw error{GW_ERR_NOMEM, gw_status_text(GW_ERR_NOMEM)};
  }

  /// Sets these keys. Throws as set() does.
  config(options settings) : config() {
    for (const auto& [key, setting] : settings) set(key, setting);
  }

  /// Reads the environment: DATABASE_URL, or else the PG* variables, and for each key a variable such as
  /// GRAPHILE_WORKER_CONCURRENCY for `concurrency`. Throws error with GW_ERR_CONFIG if a variable's name differs from such
  /// a name by at most two letters.
  static config from_env() {
    config settings;
    settings.load_env();
    return settings;
  }

  /// Sets a key. Throws error with GW_ERR_CONFIG if the key is unknown or the value has another form. The limits of a value
  /// are checked when a client or worker is made.
  config& set(std::string_view key, const value& setting) & {
    detail::call(gw_config_set, get(), detail::text{key}.c_str(), detail::text{setting.text()}.c_str());
    return *this;
  }
  config&& set(std::string_view key, const value& setting) && { return std::move(set(key, setting)); }

  /// Sets the keys that the environment has, and keeps the others; see from_env().
  config& load_env() {
    detail::call(gw_config_load_env, get());
    return *this;
  }

  /// The value that was set, or else the default; empty if there is neither. Throws error with GW_ERR_CONFIG for an
  /// unknown key.
  std::optional<std::string> get(std::string_view key) const {
    char* found = nullptr;
    detail::call(gw_config_get, get(), detail::text{key}.c_str(), &found);
    return detail::take_optional(found);
  }

  /// All keys.
  static std::vector<std::string_view> keys() {
    std::vector<std::string_view> all;
    while (const char* key = gw_config_key_at(all.size())) all.emplace_back(key);
    return all;
  }

  /// The description of a key, as JSON: `{"key", "type", "default", "for", "doc"}`. Empty for an unknown key.
  static std::optional<std::string_view> info(std::string_view key) {
    return detail::optional_view(gw_config_key_info(detail::text{key}.c_str()));
  }

  /// For calls of graphile_worker.h.
  gw_config_t* get() const noexcept { return handle_.get(); }

 private:
  detail::handle<gw_config_t, gw_config_free> handle_;
};

/// What happens to a waiting job with the same key.
enum class key_mode : std::int32_t {
  replace = GW_KEY_REPLACE,                  ///< The new job replaces all its settings.
  preserve_run_at = GW_KEY_PRESERVE_RUN_AT,  ///< As replace, but a job that was never tried keeps its run_at.
  unsafe_dedupe = GW_KEY_UNSAFE_DEDUPE,      ///< Nothing changes, even if the job runs or has failed permanently.
};

/// A job to add. It can be added any number of times. Setters throw error if a text is not UTF-8. client::add and check()
/// check the limits of the values.
///
/// ```cpp
/// client.add(spec{"send_email"}.payload(R"({"to": "ada@example.org"})").queue("mail").max_attempts(3));
/// ```
class spec {
 public:
  /// A job of this task, 1 to 128 characters.
  explicit spec(std::string_view task) : handle_(gw_spec_new(detail::text{task}.c_str())) {
    if (!handle_) throw error{GW_ERR_UTF8, "the name of a task must be UTF-8"};
  }

  /// The payload: JSON text, stored byte for byte. Defaults to `{}`. Throws error with GW_ERR_JSON if it is not JSON.
  spec& payload(std::string_view json) & { return set(gw_spec_set_payload(get(), json.data() ? json.data() : "", json.size())); }
  spec&& payload(std::string_view json) && { return std::move(payload(json)); }

  /// The named queue, at most 128 characters. Jobs of one queue run one after the other. Defaults to none.
  spec& queue(std::string_view name) & { return set(gw_spec_set_queue(get(), detail::text{name}.c_str())); }
  spec&& queue(std::string_view name) && { return std::move(queue(name)); }

  /// The earliest start: a time_point, or another time of system_clock. Defaults to now, by the database's clock.
  template <class Duration>
  spec& run_at(std::chrono::time_point<std::chrono::system_clock, Duration> time) & {
    return set(gw_spec_set_run_at(get(), detail::to_us(detail::to_time(time))));
  }
  template <class Duration>
  spec&& run_at(std::chrono::time_point<std::chrono::system_clock, Duration> time) && {
    return std::move(run_at(time));
  }

  /// The number of failed attempts after which the job fails permanently, 1 to 32767. Defaults to 25.
  spec& max_attempts(std::int32_t attempts) & { return set(gw_spec_set_max_attempts(get(), attempts)); }
  spec&& max_attempts(std::int32_t attempts) && { return std::move(max_attempts(attempts)); }

  /// The priority, -32768 to 32767. Lower numbers run first. Defaults to 0.
  spec& priority(std::int32_t priority) & { return set(gw_spec_set_priority(get(), priority)); }
  spec&& priority(std::int32_t value) && { return std::move(priority(value)); }

  /// The job key, 1 to 512 characters. At most one waiting job has it. Defaults to none.
  spec& key(std::string_view key, key_mode mode = key_mode::replace) & {
    return set(gw_spec_set_key(get(), detail::text{key}.c_str(), static_cast<std::int32_t>(mode)));
  }
  spec&& key(std::string_view name, key_mode mode = key_mode::replace) && { return std::move(key(name, mode)); }

  /// A flag. Workers can be configured to leave out jobs with it. May be repeated.
  spec& flag(std::string_view flag) & { return set(gw_spec_add_flag(get(), detail::text{flag}.c_str())); }
  spec&& flag(std::string_view name) && { return std::move(flag(name)); }

  /// The W3C trace context of the job. It is stored in the payload, which must be a JSON object.
  spec& traceparent(std::string_view context) & { return set(gw_spec_set_traceparent(get(), detail::text{context}.c_str())); }
  spec&& traceparent(std::string_view context) && { return std::move(traceparent(context)); }

  /// Checks all fields against their limits. Throws error that names the field. client::add does this too.
  void check() const { detail::call(gw_spec_check, get()); }

  /// For calls of graphile_worker.h.
  gw_spec_t* get() const noexcept { return handle_.get(); }

 private:
  spec& set(gw_status_t status) {
    if (status < 0) check();  // Throws the error that names the field and, for JSON, the place.
    detail::check(status);
    return *this;
  }

  detail::handle<gw_spec_t, gw_spec_free> handle_;
};

/// The style of parameters in the statement of sql_add_job.
enum class sql_style : std::int32_t {
  dollar = GW_SQL_DOLLAR,      ///< `$1` (libpq, libpqxx)
  format = GW_SQL_FORMAT,      ///< `%s`
  named = GW_SQL_NAMED,        ///< `:identifier` (SOCI)
  pyformat = GW_SQL_PYFORMAT,  ///< `%(identifier)s`
};

/// The SQL statement that adds a job within your own transaction. gw_sql_add_job in graphile_worker.h documents its
/// parameters and its result. An empty schema means `graphile_worker`.
inline std::string sql_add_job(sql_style style = sql_style::dollar, std::string_view schema = {}) {
  char* sql = nullptr;
  const detail::text name{schema};
  detail::call(gw_sql_add_job, schema.empty() ? nullptr : name.c_str(), static_cast<std::int32_t>(style), &sql);
  return detail::take(sql);
}

/// What client::cleanup deletes. Join several with `|`.
enum class cleanup_task : std::uint32_t {
  delete_permafailed = GW_CLEANUP_DELETE_PERMAFAILED,  ///< Jobs that have failed permanently.
  gc_tasks = GW_CLEANUP_GC_TASKS,                      ///< Tasks that have no job.
  gc_queues = GW_CLEANUP_GC_QUEUES,                    ///< Named queues that have no job.
};

constexpr cleanup_task operator|(cleanup_task one, cleanup_task other) noexcept {
  return static_cast<cleanup_task>(static_cast<std::uint32_t>(one) | static_cast<std::uint32_t>(other));
}

/// Adds jobs and administers a queue, on database connections of its own. Thread-safe. Each call blocks until the database
/// replies, at most for the config's `database_timeout` (default 10 s). It throws error if the database refuses the call or
/// does not reply in time.
///
/// Administration returns JSON text with the field names of `graphile-worker --json`; see docs/cli.md, section JSON.
class client {
 public:
  /// Connects once to check address and password. Throws error with GW_ERR_CONNECT, GW_ERR_AUTH, …
  explicit client(const config& settings) {
    gw_client_t* made = nullptr;
    detail::call(gw_client_new, settings.get(), &made);
    handle_.reset(made);
  }

  /// Wraps a client that it does not own and does not free; see job_info::client and worker::client.
  static client borrowed(gw_client_t* handle) noexcept { return client{handle}; }

  /// Checks that the database replies. Throws error if it does not reply within `timeout`.
  void check(std::chrono::milliseconds timeout = std::chrono::seconds{10}) {
    detail::call(gw_client_check, get(), detail::to_ms(timeout));
  }

  /// Installs the queue's schema, or updates the existing one. Safe to repeat, also while workers run.
  void migrate() { detail::call(gw_client_migrate, get()); }

  /// Adds a job and returns its id. Throws error with GW_ERR_CONFIG, naming the field, if a value is outside its limits, and
  /// with GW_ERR_SKIPPED or GW_ERR_REFUSED if an interceptor of BeforeJobSchedule decided so.
  std::int64_t add(const spec& job) {
    std::int64_t id = 0;
    detail::call(gw_client_add_job, get(), job.get(), &id);
    return id;
  }

  /// Adds all jobs of a range of spec, or none. Returns their ids in the same order.
  template <class Specs>
  std::vector<std::int64_t> add_all(const Specs& jobs) {
    std::vector<const gw_spec_t*> handles;
    for (const spec& job : jobs) handles.push_back(job.get());
    std::vector<std::int64_t> ids(handles.size());
    detail::call(gw_client_add_jobs, get(), handles.data(), handles.size(), ids.data());
    return ids;
  }

  /// Removes the job with a key. Returns whether there was one. A running job keeps running, and is not retried.
  bool remove(std::string_view key) { return detail::call(gw_client_remove_job, get(), detail::text{key}.c_str()) == GW_OK; }

  /// Jobs ordered by id, as a JSON array. `filter` is a JSON object with any of these fields:
  /// `{"task", "queue", "state": "ready|scheduled|locked|failed", "limit", "offset"}`.
  std::string list(std::string_view filter = "{}") {
    return json(gw_client_list_jobs, detail::text{filter}.c_str());
  }

  /// One job, as a JSON object; empty if no job has this id.
  std::optional<std::string> job(std::int64_t id) {
    char* found = nullptr;
    detail::call(gw_client_job, get(), id, &found);
    return detail::take_optional(found);
  }

  /// The number of jobs in each state, as a JSON object.
  std::string stats() { return json(gw_client_stats); }
  /// The named queues, as a JSON array.
  std::string queues() { return json(gw_client_queues); }
  /// The workers that hold jobs or queues, as a JSON array.
  std::string locked_workers() { return json(gw_client_locked_workers); }
  /// The workers that have sent a heartbeat, as a JSON array. `is_stale` is true if a worker has sent none for longer than
  /// the threshold and three of its own heartbeat intervals.
  std::string active_workers(std::chrono::milliseconds sweep_threshold) {
    return json(gw_client_active_workers, detail::to_ms(sweep_threshold));
  }
  /// Deletes jobs as if they had succeeded. Returns the deleted jobs. Jobs that a worker holds are left unchanged.
  std::string complete(const std::vector<std::int64_t>& ids) { return json(gw_client_complete_jobs, ids.data(), ids.size()); }
  /// Fails jobs permanently. Returns these jobs. Jobs that a worker holds are left unchanged.
  std::string fail(const std::vector<std::int64_t>& ids, std::string_view reason) {
    return json(gw_client_fail_jobs, ids.data(), ids.size(), detail::text{reason}.c_str());
  }
  /// Changes jobs that wait or have failed. Returns the changed jobs. Jobs that a worker holds are left unchanged. `changes`
  /// is a JSON object with at least one of `{"run_at": "now", "priority", "attempts", "max_attempts"}`.
  std::string reschedule(const std::vector<std::int64_t>& ids, std::string_view changes) {
    return json(gw_client_reschedule_jobs, ids.data(), ids.size(), detail::text{changes}.c_str());
  }
  /// Unlocks the jobs and queues of these workers. Only for dead workers: the jobs of a living one run twice.
  std::string force_unlock(const std::vector<std::string>& worker_ids) {
    std::vector<const char*> ids;
    for (const std::string& id : worker_ids) ids.push_back(id.c_str());
    return json(gw_client_force_unlock, ids.data(), ids.size());
  }
  /// Deletes rows that are no longer needed. Returns how many.
  std::string cleanup(cleanup_task tasks) { return json(gw_client_cleanup, static_cast<std::uint32_t>(tasks)); }
  /// Recovers the jobs of dead workers. `how` is a JSON object with any of
  /// `{"sweep_threshold_ms", "recovery_delay_ms", "dry_run"}`. `raised_thresholds` in the result names living workers for
  /// which the threshold is too short.
  std::string sweep_stale_workers(std::string_view how = "{}") {
    return json(gw_client_sweep_stale_workers, detail::text{how}.c_str());
  }

  /// For calls of graphile_worker.h.
  gw_client_t* get() const noexcept { return handle_.get(); }

 private:
  explicit client(gw_client_t* handle) noexcept : handle_(handle, {false}) {}

  template <class Function, class... Arguments>
  std::string json(Function function, Arguments... arguments) {
    char* answer = nullptr;
    detail::call(function, get(), arguments..., &answer);
    return detail::take(answer);
  }

  detail::handle<gw_client_t, gw_client_free> handle_;
};

/// The fields of a job. Thread-safe; never blocks.
class job_info {
 public:
  std::int64_t id() const noexcept { return gw_job_id(get()); }
  std::string_view task() const noexcept { return detail::view(gw_job_task(get())); }
  /// The job key, if it has one.
  std::optional<std::string_view> key() const { return detail::optional_view(gw_job_key(get())); }
  /// The number of this attempt, from 1.
  std::int32_t attempts() const noexcept { return gw_job_attempts(get()); }
  std::int32_t max_attempts() const noexcept { return gw_job_max_attempts(get()); }
  /// Lower numbers run first.
  std::int32_t priority() const noexcept { return gw_job_priority(get()); }
  /// How often the job was added again under its key.
  std::int32_t revision() const noexcept { return gw_job_revision(get()); }
  time_point run_at() const noexcept { return detail::from_us(gw_job_run_at(get())); }
  time_point created_at() const noexcept { return detail::from_us(gw_job_created_at(get())); }
  /// JSON text, byte for byte as the database holds it.
  std::string_view payload() const noexcept {
    std::size_t length = 0;
    const char* text = gw_job_payload(get(), &length);
    return {text ? text : "", length};
  }
  /// All fields and the payload, as a JSON object.
  std::string json() const { return detail::take(gw_job_json(get())); }
  /// The W3C trace context of the job, if it has one.
  std::optional<std::string> traceparent() const { return detail::take_optional(gw_job_traceparent(get())); }
  /// The id under which the worker locks the job.
  std::string_view worker_id() const noexcept { return detail::view(gw_job_worker_id(get())); }
  /// The worker's client, for adding further jobs. Not owned. Valid until the worker's next start or its destruction.
  graphile_worker::client client() const noexcept { return client::borrowed(gw_job_client(get())); }
  /// Whether the job should end early: a stop's grace period is over, its task's timeout is over, or another worker has taken
  /// the job. A long task checks this from time to time and throws.
  bool is_cancelled() const noexcept { return gw_job_is_cancelled(get()); }

  /// If the job succeeds, runs it again after the delay. The attempt is not counted.
  void snooze(std::chrono::milliseconds delay) { detail::check(gw_job_snooze(get(), detail::to_ms(delay))); }
  /// If the job fails, retries it after the delay, instead of its task's backoff.
  void retry_after(std::chrono::milliseconds delay) { detail::check(gw_job_retry_after(get(), detail::to_ms(delay))); }

  /// For calls of graphile_worker.h.
  gw_job_t* get() const noexcept { return handle_.get(); }

 protected:
  job_info() noexcept = default;
  job_info(gw_job_t* handle, bool owned) noexcept : handle_(handle, {owned}) {}

  detail::handle<gw_job_t, gw_job_free> handle_;
};

/// One result for each item of a batch: its error if it failed, empty if it is done.
using item_results = std::vector<std::optional<std::string>>;

/// A job without an outcome that you own: from job::defer or worker::next. End it once, from any thread. If the last handle of
/// a job is destroyed without an outcome, the job fails with "handle dropped without a result". It may outlive its worker.
///
/// complete, complete_items and fail never block. The first outcome counts: later ones throw error with
/// GW_ERR_ALREADY_FINISHED. They throw GW_ERR_CLOSED if the worker has stopped.
class pending_job : public job_info {
 public:
  /// No job.
  pending_job() noexcept = default;
  /// Takes over an owned handle of graphile_worker.h.
  explicit pending_job(gw_job_t* owned) noexcept : job_info(owned, true) {}

  /// Reports that the job succeeded.
  void complete() { detail::call(gw_job_complete, get()); }
  /// Reports that the attempt failed. `message` becomes `last_error`.
  void fail(std::string_view message) {
    detail::call(gw_job_fail, get(), message.data() ? message.data() : "", message.size());
  }
  /// Reports the results of a batch job, whose payload is a JSON array. Only failed items stay for the next attempt.
  void complete_items(const item_results& results) {
    std::vector<const char*> errors;
    for (const auto& result : results) errors.push_back(result ? result->c_str() : nullptr);
    detail::call(gw_job_complete_items, get(), errors.data(), errors.size());
  }
  /// Another handle of the same job.
  pending_job retain() const {
    gw_job_t* other = gw_job_retain(get());
    if (!other) throw error{GW_ERR_HANDLE, "there is no job to retain: it was moved from, or freed"};
    return pending_job{other};
  }

  /// Whether there is a job.
  explicit operator bool() const noexcept { return get() != nullptr; }
};

/// A running job, valid until the task's function returns. If the function returns, the job has succeeded. If it throws, the
/// attempt fails, and the exception's text becomes `last_error`.
class job : public job_info {
 public:
  /// Defers the outcome: the job ends through the returned pending_job and not when the function returns. It may end earlier
  /// and on another thread. Until then, it takes one of the worker's `concurrency` slots, but no thread.
  ///
  /// ```cpp
  /// worker.task("push", [&](job& job) {
  ///   http.post(job.payload(), [pending = std::make_shared<pending_job>(job.defer())](int status) {
  ///     status == 200 ? pending->complete() : pending->fail("refused");
  ///   });
  /// });
  /// ```
  [[nodiscard]] pending_job defer() {
    gw_job_t* owned = gw_job_retain(get());
    if (!owned) throw error{GW_ERR_HANDLE, gw_status_text(GW_ERR_HANDLE)};
    deferred_ = true;
    return pending_job{owned};
  }

 private:
  friend class worker;
  explicit job(gw_job_t* borrowed) noexcept : job_info(borrowed, false) {}

  bool deferred_ = false;
};

/// An event of a worker. The names are those of the Rust API: `JobComplete`, `WorkerStart`, …
class event {
 public:
  /// No event.
  event() noexcept = default;
  /// Takes over an owned handle of graphile_worker.h.
  explicit event(gw_event_t* owned) noexcept : handle_(owned) {}

  /// All event names.
  static std::vector<std::string_view> names() {
    std::vector<std::string_view> all;
    while (const char* name = gw_event_name_at(all.size())) all.emplace_back(name);
    return all;
  }

  std::string_view name() const noexcept { return detail::view(gw_event_name(get())); }
  /// The fields of the event, as a JSON object.
  std::string_view json() const noexcept { return detail::view(gw_event_json(get())); }
  /// The id of the event's job; 0 if the event is not about a job.
  std::int64_t job_id() const noexcept { return gw_event_job_id(get()); }

  /// Whether there is an event.
  explicit operator bool() const noexcept { return get() != nullptr; }
  /// For calls of graphile_worker.h.
  gw_event_t* get() const noexcept { return handle_.get(); }

 private:
  friend class worker;
  static event borrowed(const gw_event_t* handle) noexcept {
    event view;
    view.handle_ = {const_cast<gw_event_t*>(handle), {false}};
    return view;
  }

  detail::handle<gw_event_t, gw_event_free> handle_;
};

/// The decision of an interceptor.
class decision {
 public:
  /// Continue. The next interceptor decides; if there is none, nothing changes.
  static decision proceed() { return decision{GW_DECIDE_CONTINUE}; }
  /// BeforeJobRun, AfterJobRun: the job counts as done. BeforeJobSchedule: no job is added. JobRecovery: it stays locked.
  static decision skip() { return decision{GW_DECIDE_SKIP}; }
  /// BeforeJobRun, AfterJobRun: the attempt fails. BeforeJobSchedule: no job is added, and the call fails with GW_ERR_REFUSED.
  static decision fail(std::string reason) { return decision{GW_DECIDE_FAIL, std::move(reason)}; }
  /// BeforeJobSchedule: continue with this payload.
  static decision payload(std::string json) { return decision{GW_DECIDE_PAYLOAD, std::move(json)}; }
  /// JobRecovery: the job runs again at this time, with this number of used attempts; unchanged if empty.
  template <class Duration>
  static decision reschedule(std::chrono::time_point<std::chrono::system_clock, Duration> run_at,
                             std::optional<std::int32_t> attempts = {}) {
    decision made{GW_DECIDE_RESCHEDULE};
    made.run_at_us_ = detail::to_us(detail::to_time(run_at));
    made.attempts_ = attempts.value_or(-1);
    return made;
  }
  /// JobRecovery: the attempt counts as failed, and the job is retried after its backoff.
  static decision fail_with_backoff() { return decision{GW_DECIDE_FAIL_WITH_BACKOFF}; }

 private:
  friend class worker;
  explicit decision(std::int32_t code, std::string text = {}) : code_(code), text_(std::move(text)) {}

  std::int32_t code_;
  std::string text_;
  std::int64_t run_at_us_ = 0;
  std::int32_t attempts_ = -1;
};

/// The result of a pull: GW_OK with a value, or the reason why there is none.
template <class T>
struct pulled {
  /// GW_OK; GW_CANCELLED: `value` is an earlier job that should end early; GW_TIMEOUT; GW_WOKEN: worker::wakeup was called;
  /// GW_STOPPED: the worker hands out nothing more until its next start.
  gw_status_t status;
  T value;

  /// Whether the status is GW_OK.
  explicit operator bool() const noexcept { return status == GW_OK; }
  T& operator*() noexcept { return value; }
  T* operator->() noexcept { return &value; }
};

/// The mode of worker::stop.
enum class stop_mode : std::int32_t {
  graceful = GW_STOP_GRACEFUL,  ///< Running jobs may go on for the config's shutdown_grace_period.
  abort = GW_STOP_ABORT,        ///< Running jobs are cancelled at once.
};

/// The state of a worker.
enum class worker_state : std::int32_t {
  fresh = GW_STATE_NEW,
  running = GW_STATE_RUNNING,
  stopping = GW_STATE_STOPPING,
  stopped = GW_STATE_STOPPED,
  failed = GW_STATE_FAILED,
};

/// Runs jobs, on threads of the library. Thread-safe.
///
/// Calls that wait (run, run_once, wait, flush, next) throw error with GW_ERR_DEADLOCK within functions that the library
/// calls, such as a task.
class worker {
 public:
  /// Does not connect yet. Throws error with GW_ERR_CONFIG if an option is outside its limits.
  explicit worker(const config& settings) {
    gw_worker_t* made = nullptr;
    detail::call(gw_worker_new, settings.get(), &made);
    handle_.reset(made);
  }
  // The destructor aborts a running worker and waits for its end, at most for the grace period and one second.

  /// Registers a task: `task` is called for each of its jobs, on as many as `threads` threads at once. Only before the start.
  /// An exception fails the attempt. Options: `timeout` (a duration; a job that runs longer is cancelled) and `backoff`, the
  /// delay before a retry (`"fixed 10s"`, `"linear 10s 1h"`, `"exponential 10s 1h"`: first and longest delay).
  ///
  /// ```cpp
  /// worker.task("send_email", [&](job& job) { mailer.send(job.payload()); }, {{"timeout", 30s}});
  /// ```
  worker& task(std::string_view name, std::function<void(job&)> task, options settings = {}) {
    using function = std::function<void(job&)>;
    return add(name, box(std::move(task)), run_task, detail::destroy<function>, settings);
  }

  /// The same for batch jobs, whose payload is a JSON array. `task` returns one result for each item, in order. Only failed
  /// items stay for the next attempt. Another number of results, or an exception, fails all items.
  worker& batch_task(std::string_view name, std::function<item_results(job&)> task, options settings = {}) {
    using function = std::function<item_results(job&)>;
    return add(name, box(std::move(task)), run_batch_task, detail::destroy<function>, settings);
  }

  /// Registers a task whose jobs are pulled with next(). All tasks of one worker must be of the same kind: called or pulled.
  /// Only before the start.
  worker& pulled_task(std::string_view name, options settings = {}) { return add(name, nullptr, nullptr, nullptr, settings); }

  /// Sets an option of a registered task: `timeout` or `backoff`. Only before the start. Throws error with GW_ERR_CONFIG.
  worker& task_option(std::string_view task_name, std::string_view key, const value& setting) {
    detail::call(gw_worker_set_task_option, get(), detail::text{task_name}.c_str(), detail::text{key}.c_str(),
                 detail::text{setting.text()}.c_str());
    return *this;
  }

  /// Makes the worker add jobs by the clock: lines of crontab text. May be called repeatedly, only before the start. Throws
  /// error with GW_ERR_CRONTAB, naming line and column.
  worker& crontab(std::string_view text) {
    detail::call(gw_worker_add_crontab, get(), detail::text{text}.c_str());
    return *this;
  }

  /// Calls `observer` for events of this name, one after the other, on a thread for events. WorkerInit and JobStart call it on
  /// the thread where they happen. Only before the start. An exception is printed to stderr, and has no other effect.
  worker& on(std::string_view name, std::function<void(const event&)> observer) {
    using function = std::function<void(const event&)>;
    const detail::text event_name{name};
    detail::call(gw_worker_on_event, get(), event_name.c_str(), observe, box(std::move(observer)), detail::destroy<function>);
    return *this;
  }

  /// Queues events of this name for next_event(). At most 1024 wait. Only before the start.
  worker& queue_events(std::string_view name) {
    detail::call(gw_worker_on_event, get(), detail::text{name}.c_str(), nullptr, nullptr, nullptr);
    return *this;
  }

  /// Calls `interceptor` at BeforeJobRun, AfterJobRun, BeforeJobSchedule or JobRecovery, on the thread where it happens. Only
  /// before the start. An exception fails the attempt (BeforeJobRun), refuses the job (BeforeJobSchedule), or has no effect.
  worker& intercept(std::string_view name, std::function<decision(const event&)> interceptor) {
    using function = std::function<decision(const event&)>;
    const detail::text event_name{name};
    detail::call(gw_worker_intercept, get(), event_name.c_str(), decide, box(std::move(interceptor)), detail::destroy<function>);
    return *this;
  }

  /// Connects, installs the schema or updates the existing one, and runs jobs until stop(). Returns as soon as the worker
  /// runs. Throws error if it cannot run.
  void start() { detail::call(gw_worker_start, get(), GW_RUN_FOREVER); }
  /// The same, but the worker ends when no job is due.
  void start_once() { detail::call(gw_worker_start, get(), GW_RUN_ONCE); }
  /// Calls start() and wait().
  void run() { detail::call(gw_worker_run, get()); }
  /// Calls start_once() and wait(). Adds no jobs of the crontab, not even those that `fill` would make up for. Recovers no
  /// jobs of dead workers.
  void run_once() { detail::call(gw_worker_run_once, get()); }

  /// Requests a stop, and returns at once. ASYNC-SIGNAL-SAFE.
  void stop(stop_mode mode = stop_mode::graceful) noexcept { gw_worker_request_stop(get(), static_cast<std::int32_t>(mode)); }

  /// Waits until the worker has ended. Throws error with GW_ERR_STUCK, naming the jobs, if handlers did not return or outcomes
  /// could not be written.
  void wait() { detail::call(gw_worker_wait, get(), std::int64_t{-1}); }
  /// The same, at most for `timeout`. Returns whether the worker has ended.
  bool wait(std::chrono::milliseconds timeout) { return detail::call(gw_worker_wait, get(), detail::to_ms(timeout)) == GW_OK; }

  /// Waits until the database has every outcome that was reported before the call.
  void flush() { detail::call(gw_worker_flush, get(), std::int64_t{-1}); }
  /// The same, at most for `timeout`. Returns whether the database has them.
  bool flush(std::chrono::milliseconds timeout) { return detail::call(gw_worker_flush, get(), detail::to_ms(timeout)) == GW_OK; }

  worker_state state() const noexcept { return static_cast<worker_state>(gw_worker_state(get())); }
  /// The id under which the worker locks jobs. Each start has a new one. Empty before the first start. Valid until the next
  /// start or the destruction of the worker.
  std::optional<std::string_view> id() const { return detail::optional_view(gw_worker_id(get())); }
  /// The worker's client. Not owned. Valid until the next start or the destruction of the worker. Throws error with GW_ERR_STATE
  /// before the first start.
  graphile_worker::client client() const {
    gw_client_t* borrowed = gw_worker_client(get());
    if (!borrowed) throw error{GW_ERR_STATE, "the worker has no client before its first start; make a client of your own"};
    return client::borrowed(borrowed);
  }

  /// Waits for the next job of a pulled task, and returns it started. Several threads may call this at once. At most
  /// `concurrency` jobs without an outcome are handed out at once.
  ///
  /// ```cpp
  /// while (auto job = worker.next()) job->complete();
  /// ```
  [[nodiscard]] pulled<pending_job> next() { return pull(-1); }
  /// The same, at most for `timeout`.
  [[nodiscard]] pulled<pending_job> next(std::chrono::milliseconds timeout) { return pull(detail::to_ms(timeout)); }
  /// Waits until there is a job, and returns up to `capacity` jobs. `capacity` is 1 to GW_LIST_MAX.
  [[nodiscard]] pulled<std::vector<pending_job>> next_batch(std::size_t capacity) { return pull_batch(capacity, -1); }
  /// The same, at most for `timeout`.
  [[nodiscard]] pulled<std::vector<pending_job>> next_batch(std::size_t capacity, std::chrono::milliseconds timeout) {
    return pull_batch(capacity, detail::to_ms(timeout));
  }
  /// A file descriptor for poll(2): readable while next(0ms) would return anything but GW_TIMEOUT. The library owns it: do not
  /// read or close it.
  int fd() const noexcept { return gw_worker_fd(get()); }
  /// Makes one waiting or later next() return GW_WOKEN. ASYNC-SIGNAL-SAFE.
  void wakeup() noexcept { gw_worker_wakeup(get()); }

  /// Waits for the next queued event.
  [[nodiscard]] pulled<event> next_event() { return pull_event(-1); }
  /// The same, at most for `timeout`.
  [[nodiscard]] pulled<event> next_event(std::chrono::milliseconds timeout) { return pull_event(detail::to_ms(timeout)); }
  /// A file descriptor for poll(2): readable while next_event(0ms) would return anything but GW_TIMEOUT. The library owns it: do
  /// not read or close it.
  int event_fd() const noexcept { return gw_worker_event_fd(get()); }

  /// The counters since the last start, and the current load.
  gw_stats_t stats() const {
    gw_stats_t counted{};
    counted.struct_size = sizeof counted;
    detail::check(gw_worker_stats(get(), &counted));
    return counted;
  }
  /// All statistics, as a JSON object.
  std::string stats_json() const { return detail::take(gw_worker_stats_json(get())); }

  /// For calls of graphile_worker.h.
  gw_worker_t* get() const noexcept { return handle_.get(); }

 private:
  template <class Function>
  static Function* box(Function function) {
    if (!function) throw error{GW_ERR_INVALID, "an empty std::function cannot be called"};
    return new Function(std::move(function));
  }

  /// The library owns `boxed` from its call on, also if that fails. Before the call, `owned` frees it if an exception is thrown.
  worker& add(std::string_view name, void* boxed, gw_task_fn function, gw_free_fn free_fn, options settings) {
    std::unique_ptr<void, gw_free_fn> owned{boxed, free_fn};
    const detail::text task_name{name};
    detail::call(gw_worker_add_task, get(), task_name.c_str(), function, owned.release(), free_fn);
    for (const auto& [key, setting] : settings) task_option(name, key, setting);
    return *this;
  }

  /// Runs `body`. An exception becomes the error text of the job.
  template <class Body>
  static gw_outcome_t at_the_door(gw_job_t* job, Body body) noexcept {
    try {
      return body();
    } catch (...) {
      const std::string text = detail::caught();
      gw_job_set_error(job, text.data(), text.size());
      return GW_TASK_FAILED;
    }
  }

  static gw_outcome_t run_task(gw_job_t* handle, void* boxed) noexcept {
    return at_the_door(handle, [&]() -> gw_outcome_t {
      job running{handle};
      detail::unbox<std::function<void(job&)>>(boxed)(running);
      return running.deferred_ ? GW_TASK_PENDING : GW_TASK_DONE;
    });
  }

  static gw_outcome_t run_batch_task(gw_job_t* handle, void* boxed) noexcept {
    return at_the_door(handle, [&]() -> gw_outcome_t {
      job running{handle};
      const item_results results = detail::unbox<std::function<item_results(job&)>>(boxed)(running);
      std::vector<const char*> errors;
      for (const auto& result : results) errors.push_back(result ? result->c_str() : nullptr);
      detail::call(gw_job_complete_items, handle, errors.data(), errors.size());
      return GW_TASK_DONE;  // The job already has the outcome of its items.
    });
  }

  static void observe(const gw_event_t* handle, void* boxed) noexcept {
    const event seen = event::borrowed(handle);
    try {
      detail::unbox<std::function<void(const event&)>>(boxed)(seen);
    } catch (...) {
      std::fprintf(stderr, "graphile_worker: an observer of %s threw: %s\n", gw_event_name(handle), detail::caught().c_str());
    }
  }

  static std::int32_t decide(const gw_event_t* handle, gw_decision_t* answer, void* boxed) noexcept {
    try {
      const decision made = detail::unbox<std::function<decision(const event&)>>(boxed)(event::borrowed(handle));
      if (made.code_ == GW_DECIDE_FAIL || made.code_ == GW_DECIDE_PAYLOAD) {
        detail::check(gw_decision_set_text(answer, made.text_.data(), made.text_.size()));
      }
      if (made.code_ == GW_DECIDE_RESCHEDULE) detail::check(gw_decision_set_run_at(answer, made.run_at_us_, made.attempts_));
      return made.code_;
    } catch (...) {
      const std::string text = detail::caught();
      gw_decision_set_text(answer, text.data(), text.size());
      return 0;  // Not a decision: the library treats it as a panic of the hook.
    }
  }

  pulled<pending_job> pull(std::int64_t timeout_ms) {
    gw_job_t* owned = nullptr;
    const gw_status_t status = detail::call(gw_worker_next, get(), timeout_ms, &owned);
    return {status, pending_job{owned}};
  }

  pulled<std::vector<pending_job>> pull_batch(std::size_t capacity, std::int64_t timeout_ms) {
    std::vector<gw_job_t*> owned(capacity);
    std::vector<pending_job> jobs;
    jobs.reserve(capacity);
    std::size_t count = 0;
    const gw_status_t status = detail::call(gw_worker_next_batch, get(), timeout_ms, owned.data(), capacity, &count);
    for (std::size_t i = 0; i < count; ++i) jobs.emplace_back(owned[i]);
    return {status, std::move(jobs)};
  }

  pulled<event> pull_event(std::int64_t timeout_ms) {
    gw_event_t* owned = nullptr;
    const gw_status_t status = detail::call(gw_worker_next_event, get(), timeout_ms, &owned);
    return {status, event{owned}};
  }

  detail::handle<gw_worker_t, gw_worker_free> handle_;
};

/// Parsed crontab text, for previews. worker::crontab runs it.
///
/// ```cpp
/// for (auto time : crontab{"0 8 * * 1 report ?tz=Europe/Berlin"}.next(0, std::chrono::system_clock::now(), 3)) …
/// ```
class crontab {
 public:
  /// Parses crontab text. Throws error with GW_ERR_CRONTAB, naming line and column.
  explicit crontab(std::string_view text) {
    gw_crontab_t* parsed = nullptr;
    detail::call(gw_crontab_parse, detail::text{text}.c_str(), &parsed);
    handle_.reset(parsed);
  }

  /// The number of entries.
  std::size_t size() const noexcept { return gw_crontab_len(get()); }
  /// The entry at `index`, from 0, as JSON: `{"identifier", "task"}`; empty after the last entry.
  std::optional<std::string> item(std::size_t index) const { return detail::take_optional(gw_crontab_item_json(get(), index)); }
  /// The next times after `after` at which an entry is due, at most `count`. Empty if it is never due.
  template <class Duration>
  std::vector<time_point> next(std::size_t index, std::chrono::time_point<std::chrono::system_clock, Duration> after,
                               std::size_t count) const {
    std::vector<std::int64_t> microseconds(count);
    const std::int64_t after_us = detail::to_us(detail::to_time(after));
    microseconds.resize(gw_crontab_next(get(), index, after_us, microseconds.data(), count));
    std::vector<time_point> times;
    for (const std::int64_t us : microseconds) times.push_back(detail::from_us(us));
    return times;
  }

  /// For calls of graphile_worker.h.
  gw_crontab_t* get() const noexcept { return handle_.get(); }

 private:
  detail::handle<gw_crontab_t, gw_crontab_free> handle_;
};

/// The log level: records of this level and of more severe ones are logged.
enum class log_level : std::int32_t {
  off = GW_LOG_OFF,
  error = GW_LOG_ERROR,
  warn = GW_LOG_WARN,
  info = GW_LOG_INFO,
  debug = GW_LOG_DEBUG,
  trace = GW_LOG_TRACE,
};

/// A log record. Its texts are valid within the sink only.
struct log_record {
  time_point time;
  log_level level;
  std::string_view target;
  std::string_view message;
  /// A JSON object: job_id, task, worker_id, error, …
  std::string_view fields;
};

/// Sends the log records of the whole process to `sink`, on the threads that log them, several at once. Returns when no thread
/// is in the previous sink. Exceptions of `sink` are dropped, and so are records that its thread logs while it runs.
///
/// ```cpp
/// log_to([](const log_record& line) { std::clog << line.message << ' ' << line.fields << '\n'; }, log_level::info);
/// ```
inline void log_to(std::function<void(const log_record&)> sink, log_level max_level = log_level::info) {
  using function = std::function<void(const log_record&)>;
  if (!sink) throw error{GW_ERR_INVALID, "an empty std::function cannot be called; log_to_stderr removes the sink"};
  const gw_log_fn write = [](const gw_log_record_t* line, void* boxed) noexcept {
    try {
      detail::unbox<function>(boxed)({detail::from_us(line->time_us), static_cast<log_level>(line->level),
                                      detail::view(line->target), detail::view(line->message), detail::view(line->fields)});
    } catch (...) {
      // An error of the log sink cannot be logged.
    }
  };
  detail::check(gw_log_set_sink(write, new function(std::move(sink)), detail::destroy<function>, static_cast<std::int32_t>(max_level)));
}

/// Keeps the log records of the whole process for next_log(), instead of calling a sink on threads of the library. At most 1024
/// records wait; an event `EventsDropped` reports how many were dropped.
inline void queue_log(log_level max_level = log_level::info) {
  detail::check(gw_log_set_queue(static_cast<std::int32_t>(max_level)));
}

/// The next waiting log record: an event named by its level, whose JSON has time_us, target, message and fields. GW_STOPPED
/// if records are not queued, or no longer.
[[nodiscard]] inline pulled<event> next_log(std::chrono::milliseconds timeout) {
  gw_event_t* line = nullptr;
  const gw_status_t status = detail::call(gw_log_next, detail::to_ms(timeout), &line);
  return {status, event{line}};
}

/// Removes the sink: records go to stderr, as they do before the first call, by default at level warn.
inline void log_to_stderr(log_level max_level = log_level::warn) {
  detail::check(gw_log_set_sink(nullptr, nullptr, nullptr, static_cast<std::int32_t>(max_level)));
}

}  // namespace graphile_worker

#endif  // GRAPHILE_WORKER_HPP
