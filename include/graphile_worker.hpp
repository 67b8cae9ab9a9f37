/// graphile_worker.hpp: the C++17 door of libgraphile_worker, header only.
/// Converts between C++ and graphile_worker.h; whatever a queue does, it does over there.
///
/// Rules that hold everywhere:
/// - What fails throws graphile_worker::error. What is merely not there is an empty optional or `false`.
/// - Handles (config, spec, client, worker, pending_job, event, crontab) are move-only and free themselves. One that was
///   moved from answers `error` with GW_ERR_INVALID.
/// - Text is UTF-8. A std::string_view that comes out is valid as long as the handle it was read from.
/// - Durations are std::chrono's; a negative timeout counts as zero. To wait for ever, leave the timeout out.
/// - Functions that you hand in may be called on any thread, several at once, and are destroyed when the library needs
///   them no longer, which may be on a thread of its own. Exceptions do not leave them; each says what becomes of one.
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

/// A moment as the database has it: microseconds since the Unix epoch (UTC). It compares with system_clock::now().
using time_point = std::chrono::time_point<std::chrono::system_clock, std::chrono::microseconds>;

/// What went wrong, as the library says it: `what()` names the cause and what to do next.
class error : public std::runtime_error {
 public:
  /// An error of your own making; `sqlstate` is empty if no database was involved.
  error(gw_status_t status, const std::string& message, std::string_view sqlstate = {}, bool retryable = false)
      : std::runtime_error(message), status_(status), retryable_(retryable) {
    sqlstate.copy(sqlstate_.data(), sqlstate_.size() - 1);
  }

  /// One of GW_ERR_*.
  gw_status_t status() const noexcept { return status_; }
  /// The status as text: `GW_ERR_CONNECT`.
  std::string_view status_name() const noexcept { return gw_status_name(status_); }
  /// The five characters that the database answered; empty if it answered none.
  std::string_view sqlstate() const noexcept { return sqlstate_.data(); }
  /// Whether the same call may well succeed later: a lost connection, a serialization failure.
  bool retryable() const noexcept { return retryable_; }

 private:
  gw_status_t status_;
  bool retryable_;
  std::array<char, 6> sqlstate_{};
};

/// Conversions. Nothing in here is for callers.
namespace detail {

[[noreturn]] inline void raise(gw_status_t status, gw_error_t* cause) {
  const std::unique_ptr<gw_error_t, void (*)(gw_error_t*)> owned{cause, gw_error_free};
  if (!cause) throw error{status, gw_status_text(status)};
  const char* sqlstate = gw_error_sqlstate(cause);
  throw error{status, gw_error_message(cause), sqlstate ? sqlstate : "", gw_error_is_retryable(cause)};
}

/// For functions without an error object.
inline void check(gw_status_t status) {
  if (status < 0) raise(status, nullptr);
}

/// Calls a function whose last parameter is the error object; answers a status that is no error.
template <class... Parameters, class... Arguments>
gw_status_t call(gw_status_t (*function)(Parameters...), Arguments... arguments) {
  gw_error_t* cause = nullptr;
  const gw_status_t status = function(arguments..., &cause);
  if (status < 0) raise(status, cause);
  return status;
}

/// A text that ends with NUL. One with a NUL inside would arrive cut off, so it is refused.
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

/// A time_point, from one of any precision.
template <class Duration>
time_point to_time(std::chrono::time_point<std::chrono::system_clock, Duration> time) noexcept {
  return std::chrono::floor<std::chrono::microseconds>(time);
}

inline std::int64_t to_us(time_point time) noexcept { return time.time_since_epoch().count(); }

inline time_point from_us(std::int64_t us) noexcept { return time_point{std::chrono::microseconds{us}}; }

/// Frees what is owned, and leaves alone what is borrowed.
template <class T, void (*Free)(T*)>
struct deleter {
  bool owned = true;
  void operator()(T* handle) const noexcept {
    if (owned) Free(handle);
  }
};

template <class T, void (*Free)(T*)>
using handle = std::unique_ptr<T, deleter<T, Free>>;

/// The gw_free_fn of a function that was boxed.
template <class Function>
void destroy(void* boxed) noexcept {
  delete static_cast<Function*>(boxed);
}

template <class Function>
Function& unbox(void* boxed) noexcept {
  return *static_cast<Function*>(boxed);
}

/// What the exception under way says.
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

/// The library's version, as text: `0.1.0`.
inline std::string_view version() noexcept { return gw_version_string(); }

/// How the library was built, as JSON.
inline std::string_view build_info() noexcept { return gw_build_info(); }

/// What a config key or a task option is set to: text, a number, `true`/`false`, or a duration (rounded up to
/// whole milliseconds).
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

/// Keys and their values, as config and worker::task take them: `{{"concurrency", 4}, {"poll_interval", 250ms}}`.
using options = std::initializer_list<std::pair<std::string_view, value>>;

/// How a client or a worker is set up. It is copied by their constructors; changing it later changes neither.
///
/// ```cpp
/// config settings{{"database_url", "postgres:///app"}, {"concurrency", 8}, {"poll_interval", 250ms}};
/// ```
class config {
 public:
  /// Nothing is set: every key has its default, and database_url none.
  config() : handle_(gw_config_new()) {
    if (gw_abi_version() != GW_ABI_VERSION) {
      throw error{GW_ERR_ABI, "libgraphile_worker has ABI version " + std::to_string(gw_abi_version()) +
                                  ", this program was compiled for " + std::to_string(GW_ABI_VERSION)};
    }
    if (!handle_) throw error{GW_ERR_NOMEM, gw_status_text(GW_ERR_NOMEM)};
  }

  /// Sets each of the keys. Throws like set().
  config(options settings) : config() {
    for (const auto& [key, setting] : settings) set(key, setting);
  }

  /// What the environment says: DATABASE_URL, else the PG* variables, and GRAPHILE_WORKER_CONCURRENCY for the key
  /// `concurrency`, and so on. Throws error with GW_ERR_CONFIG if a variable's name is nearly a key's.
  static config from_env() {
    config settings;
    settings.load_env();
    return settings;
  }

  /// Sets a key. Throws error with GW_ERR_CONFIG if there is no such key or the value does not fit it.
  config& set(std::string_view key, const value& setting) & {
    detail::call(gw_config_set, get(), detail::text{key}.c_str(), detail::text{setting.text()}.c_str());
    return *this;
  }
  config&& set(std::string_view key, const value& setting) && { return std::move(set(key, setting)); }

  /// Adds what the environment says to what is set; see from_env().
  config& load_env() {
    detail::call(gw_config_load_env, get());
    return *this;
  }

  /// What was set, or else the default; empty if there is neither. Throws error with GW_ERR_CONFIG for an unknown key.
  std::optional<std::string> get(std::string_view key) const {
    char* found = nullptr;
    detail::call(gw_config_get, get(), detail::text{key}.c_str(), &found);
    return detail::take_optional(found);
  }

  /// All keys there are.
  static std::vector<std::string_view> keys() {
    std::vector<std::string_view> all;
    while (const char* key = gw_config_key_at(all.size())) all.emplace_back(key);
    return all;
  }

  /// What a key means, as JSON: `{"key", "type", "default", "for", "doc"}`. Empty for an unknown key.
  static std::optional<std::string_view> info(std::string_view key) {
    return detail::optional_view(gw_config_key_info(detail::text{key}.c_str()));
  }

  /// For calls of graphile_worker.h.
  gw_config_t* get() const noexcept { return handle_.get(); }

 private:
  detail::handle<gw_config_t, gw_config_free> handle_;
};

/// What happens to a waiting job of the same key.
enum class key_mode : std::int32_t {
  replace = GW_KEY_REPLACE,                  ///< It takes over everything of the new one.
  preserve_run_at = GW_KEY_PRESERVE_RUN_AT,  ///< The same, but it keeps its time if it was never tried.
  unsafe_dedupe = GW_KEY_UNSAFE_DEDUPE,      ///< It stays as it is, even if it runs or has failed for good.
};

/// A job to add. Setters throw error if a text is no UTF-8; whether the values fit is said by client::add and by check().
///
/// ```cpp
/// client.add(spec{"send_email"}.payload(R"({"to": "ada@example.org"})").queue("mail").max_attempts(3));
/// ```
class spec {
 public:
  /// A job for this task, of 1 to 128 characters.
  explicit spec(std::string_view task) : handle_(gw_spec_new(detail::text{task}.c_str())) {
    if (!handle_) throw error{GW_ERR_UTF8, "the name of a task must be UTF-8"};
  }

  /// JSON text, stored as it is. Defaults to `{}`.
  spec& payload(std::string_view json) & { return set(gw_spec_set_payload(get(), json.data() ? json.data() : "", json.size())); }
  spec&& payload(std::string_view json) && { return std::move(payload(json)); }

  /// Jobs of one named queue run one after the other. At most 128 characters. Defaults to none.
  spec& queue(std::string_view name) & { return set(gw_spec_set_queue(get(), detail::text{name}.c_str())); }
  spec&& queue(std::string_view name) && { return std::move(queue(name)); }

  /// Not started before: a time_point, or one of system_clock's. Defaults to now, by the database's clock.
  template <class Duration>
  spec& run_at(std::chrono::time_point<std::chrono::system_clock, Duration> time) & {
    return set(gw_spec_set_run_at(get(), detail::to_us(detail::to_time(time))));
  }
  template <class Duration>
  spec&& run_at(std::chrono::time_point<std::chrono::system_clock, Duration> time) && {
    return std::move(run_at(time));
  }

  /// After how many failed attempts it stays failed, 1 to 32767. Defaults to 25.
  spec& max_attempts(std::int32_t attempts) & { return set(gw_spec_set_max_attempts(get(), attempts)); }
  spec&& max_attempts(std::int32_t attempts) && { return std::move(max_attempts(attempts)); }

  /// Lower runs first, -32768 to 32767. Defaults to 0.
  spec& priority(std::int32_t priority) & { return set(gw_spec_set_priority(get(), priority)); }
  spec&& priority(std::int32_t value) && { return std::move(priority(value)); }

  /// A key that at most one waiting job has, of 1 to 512 characters. Defaults to none.
  spec& key(std::string_view key, key_mode mode = key_mode::replace) & {
    return set(gw_spec_set_key(get(), detail::text{key}.c_str(), static_cast<std::int32_t>(mode)));
  }
  spec&& key(std::string_view name, key_mode mode = key_mode::replace) && { return std::move(key(name, mode)); }

  /// A mark by which workers leave the job to others. May be repeated.
  spec& flag(std::string_view flag) & { return set(gw_spec_add_flag(get(), detail::text{flag}.c_str())); }
  spec&& flag(std::string_view name) && { return std::move(flag(name)); }

  /// A W3C trace context that travels with the payload, which must be a JSON object then.
  spec& traceparent(std::string_view context) & { return set(gw_spec_set_traceparent(get(), detail::text{context}.c_str())); }
  spec&& traceparent(std::string_view context) && { return std::move(traceparent(context)); }

  /// Throws error, naming the field, if the database would refuse the job. client::add asks by itself.
  void check() const { detail::call(gw_spec_check, get()); }

  /// For calls of graphile_worker.h.
  gw_spec_t* get() const noexcept { return handle_.get(); }

 private:
  spec& set(gw_status_t status) {
    if (status < 0) check();  // Names the field, and for JSON the place.
    detail::check(status);
    return *this;
  }

  detail::handle<gw_spec_t, gw_spec_free> handle_;
};

/// How parameters are written in the statement of sql_add_job.
enum class sql_style : std::int32_t {
  dollar = GW_SQL_DOLLAR,      ///< `$1` (libpq, libpqxx)
  format = GW_SQL_FORMAT,      ///< `%s`
  named = GW_SQL_NAMED,        ///< `:identifier` (SOCI)
  pyformat = GW_SQL_PYFORMAT,  ///< `%(identifier)s`
};

/// The statement that adds a job within your own transaction; graphile_worker.h says what it takes and answers
/// (gw_sql_add_job). An empty schema is `graphile_worker`.
inline std::string sql_add_job(sql_style style = sql_style::dollar, std::string_view schema = {}) {
  char* sql = nullptr;
  const detail::text name{schema};
  detail::call(gw_sql_add_job, schema.empty() ? nullptr : name.c_str(), static_cast<std::int32_t>(style), &sql);
  return detail::take(sql);
}

/// What client::cleanup does; joined by `|`.
enum class cleanup_task : std::uint32_t {
  delete_permafailed = GW_CLEANUP_DELETE_PERMAFAILED,  ///< Deletes jobs that have failed for good.
  gc_tasks = GW_CLEANUP_GC_TASKS,                      ///< Deletes the names of tasks that no job has.
  gc_queues = GW_CLEANUP_GC_QUEUES,                    ///< Deletes the names of queues that no job is in.
};

constexpr cleanup_task operator|(cleanup_task one, cleanup_task other) noexcept {
  return static_cast<cleanup_task>(static_cast<std::uint32_t>(one) | static_cast<std::uint32_t>(other));
}

/// Adds jobs and administers a queue. Every call may wait for the network, up to the config's database_timeout, and throws
/// error if the database refuses or does not answer. Thread-safe.
///
/// Administration answers JSON text, with the names of `graphile-worker --json`.
class client {
 public:
  /// Connects once, so that a wrong address or password is told here. Throws error with GW_ERR_CONNECT, GW_ERR_AUTH, …
  explicit client(const config& settings) {
    gw_client_t* made = nullptr;
    detail::call(gw_client_new, settings.get(), &made);
    handle_.reset(made);
  }

  /// A client that belongs to somebody else and is not freed here; see job::client and worker::client.
  static client borrowed(gw_client_t* handle) noexcept { return client{handle}; }

  /// Whether the database answers. Throws error if it does not within `timeout`.
  void check(std::chrono::milliseconds timeout = std::chrono::seconds{10}) {
    detail::call(gw_client_check, get(), detail::to_ms(timeout));
  }

  /// Installs the queue's schema, or takes over the one that is there. Safe to repeat, beside workers.
  void migrate() { detail::call(gw_client_migrate, get()); }

  /// Adds a job; answers its id. Throws error that names the field if a value does not fit, and with GW_ERR_SKIPPED or
  /// GW_ERR_REFUSED if an interceptor of BeforeJobSchedule said so.
  std::int64_t add(const spec& job) {
    std::int64_t id = 0;
    detail::call(gw_client_add_job, get(), job.get(), &id);
    return id;
  }

  /// Adds many jobs at once, all or none; answers their ids, in their order. `jobs` is any range of spec.
  template <class Specs>
  std::vector<std::int64_t> add_all(const Specs& jobs) {
    std::vector<const gw_spec_t*> handles;
    for (const spec& job : jobs) handles.push_back(job.get());
    std::vector<std::int64_t> ids(handles.size());
    detail::call(gw_client_add_jobs, get(), handles.data(), handles.size(), ids.data());
    return ids;
  }

  /// Removes the waiting job of a key; answers whether there was one.
  bool remove(std::string_view key) { return detail::call(gw_client_remove_job, get(), detail::text{key}.c_str()) == GW_OK; }

  /// Jobs by their id, as a JSON array. `filter`: `{"task", "queue", "state": "ready|scheduled|locked|failed", "limit", "offset"}`.
  std::string list(std::string_view filter = "{}") {
    return json(gw_client_list_jobs, detail::text{filter}.c_str());
  }

  /// One job, as JSON; empty if it is not there (any more).
  std::optional<std::string> job(std::int64_t id) {
    char* found = nullptr;
    detail::call(gw_client_job, get(), id, &found);
    return detail::take_optional(found);
  }

  /// Counts jobs by their state.
  std::string stats() { return json(gw_client_stats); }
  /// The named queues.
  std::string queues() { return json(gw_client_queues); }
  /// Who holds jobs or queues.
  std::string locked_workers() { return json(gw_client_locked_workers); }
  /// Who lives: those who have said so within the threshold.
  std::string active_workers(std::chrono::milliseconds sweep_threshold) {
    return json(gw_client_active_workers, detail::to_ms(sweep_threshold));
  }
  /// Deletes jobs as if they were done; answers them. Those that a worker holds stay.
  std::string complete(const std::vector<std::int64_t>& ids) { return json(gw_client_complete_jobs, ids.data(), ids.size()); }
  /// Fails jobs for good; answers them. Those that a worker holds stay.
  std::string fail(const std::vector<std::int64_t>& ids, std::string_view reason) {
    return json(gw_client_fail_jobs, ids.data(), ids.size(), detail::text{reason}.c_str());
  }
  /// Changes waiting jobs; answers them. `changes`: `{"run_at": "now", "priority", "attempts", "max_attempts"}`.
  std::string reschedule(const std::vector<std::int64_t>& ids, std::string_view changes) {
    return json(gw_client_reschedule_jobs, ids.data(), ids.size(), detail::text{changes}.c_str());
  }
  /// Frees what these workers hold. Only for workers that are dead: a living one would run its jobs twice.
  std::string force_unlock(const std::vector<std::string>& worker_ids) {
    std::vector<const char*> ids;
    for (const std::string& id : worker_ids) ids.push_back(id.c_str());
    return json(gw_client_force_unlock, ids.data(), ids.size());
  }
  /// Tidies up.
  std::string cleanup(cleanup_task tasks) { return json(gw_client_cleanup, static_cast<std::uint32_t>(tasks)); }
  /// Gives back the jobs of workers that have died. `how`: `{"sweep_threshold_ms", "recovery_delay_ms", "dry_run"}`. The answer
  /// names living workers for which the threshold is too short in `raised_thresholds`.
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

/// What is known of a job. Thread-safe; never waits.
class job_info {
 public:
  std::int64_t id() const noexcept { return gw_job_id(get()); }
  std::string_view task() const noexcept { return detail::view(gw_job_task(get())); }
  /// Its job key, if it has one.
  std::optional<std::string_view> key() const { return detail::optional_view(gw_job_key(get())); }
  /// Which attempt this is, from 1.
  std::int32_t attempts() const noexcept { return gw_job_attempts(get()); }
  std::int32_t max_attempts() const noexcept { return gw_job_max_attempts(get()); }
  /// Lower runs first.
  std::int32_t priority() const noexcept { return gw_job_priority(get()); }
  /// How often it was added again under its key.
  std::int32_t revision() const noexcept { return gw_job_revision(get()); }
  time_point run_at() const noexcept { return detail::from_us(gw_job_run_at(get())); }
  time_point created_at() const noexcept { return detail::from_us(gw_job_created_at(get())); }
  /// JSON text, as it was stored.
  std::string_view payload() const noexcept {
    std::size_t length = 0;
    const char* text = gw_job_payload(get(), &length);
    return {text ? text : "", length};
  }
  /// Everything, the payload included.
  std::string json() const { return detail::take(gw_job_json(get())); }
  /// The W3C trace context under which it was added, if there was one.
  std::optional<std::string> traceparent() const { return detail::take_optional(gw_job_traceparent(get())); }
  /// The id under which its worker locks it.
  std::string_view worker_id() const noexcept { return detail::view(gw_job_worker_id(get())); }
  /// Its worker's client, for follow-up jobs. Valid as long as the worker; not owned.
  graphile_worker::client client() const noexcept { return client::borrowed(gw_job_client(get())); }
  /// Whether it should end soon: its worker stops, or its task's timeout is over. Ask now and then, and throw.
  bool is_cancelled() const noexcept { return gw_job_is_cancelled(get()); }

  /// If it succeeds: run it again after the delay, this attempt not counted.
  void snooze(std::chrono::milliseconds delay) { detail::check(gw_job_snooze(get(), detail::to_ms(delay))); }
  /// If it fails: the delay before the next attempt, in place of its task's backoff.
  void retry_after(std::chrono::milliseconds delay) { detail::check(gw_job_retry_after(get(), detail::to_ms(delay))); }

  /// For calls of graphile_worker.h.
  gw_job_t* get() const noexcept { return handle_.get(); }

 protected:
  job_info() noexcept = default;
  job_info(gw_job_t* handle, bool owned) noexcept : handle_(handle, {owned}) {}

  detail::handle<gw_job_t, gw_job_free> handle_;
};

/// One result per item of a batch: the error of those that failed, nothing for those that are done.
using item_results = std::vector<std::optional<std::string>>;

/// An unfinished job that is yours: from job::defer or worker::next. Finish it once, from any thread, now or later; one that
/// is destroyed unfinished fails with "handle dropped without a result". It may outlive its worker.
///
/// complete, complete_items and fail never wait. The first outcome wins: later ones throw error with
/// GW_ERR_ALREADY_FINISHED, and GW_ERR_CLOSED when the worker is gone.
class pending_job : public job_info {
 public:
  /// No job.
  pending_job() noexcept = default;
  /// Takes over an owned handle of graphile_worker.h.
  explicit pending_job(gw_job_t* owned) noexcept : job_info(owned, true) {}

  /// It succeeded.
  void complete() { detail::call(gw_job_complete, get()); }
  /// The attempt failed, with this text as its last_error.
  void fail(std::string_view message) {
    detail::call(gw_job_fail, get(), message.data() ? message.data() : "", message.size());
  }
  /// For a job whose payload is an array: only the items that failed stay for the next attempt.
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

/// A job whose task runs: valid within the task's function, on its thread. Returning is success; an exception fails the
/// attempt, with its text as last_error.
class job : public job_info {
 public:
  /// Takes the job out of the function: it is not done when the function returns, but when the answer says so, which may
  /// be before that and on another thread. It occupies one of the worker's `concurrency` places until then, but no thread.
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

/// Something that happened in a worker. The names are those of the Rust API: `JobComplete`, `WorkerStart`, …
class event {
 public:
  /// No event.
  event() noexcept = default;
  /// Takes over an owned handle of graphile_worker.h.
  explicit event(gw_event_t* owned) noexcept : handle_(owned) {}

  /// All the names there are.
  static std::vector<std::string_view> names() {
    std::vector<std::string_view> all;
    while (const char* name = gw_event_name_at(all.size())) all.emplace_back(name);
    return all;
  }

  std::string_view name() const noexcept { return detail::view(gw_event_name(get())); }
  /// What it tells, as a JSON object.
  std::string_view json() const noexcept { return detail::view(gw_event_json(get())); }
  /// The job that it is about; 0 if it is about none.
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

/// What an interceptor decides.
class decision {
 public:
  /// Go on: the next interceptor decides, or nothing changes.
  static decision proceed() { return decision{GW_DECIDE_CONTINUE}; }
  /// BeforeJobRun, AfterJobRun: the job counts as done. BeforeJobSchedule: nothing is added. JobRecovery: it stays locked.
  static decision skip() { return decision{GW_DECIDE_SKIP}; }
  /// BeforeJobRun, AfterJobRun: the attempt fails. BeforeJobSchedule: nothing is added, and the caller is told.
  static decision fail(std::string reason) { return decision{GW_DECIDE_FAIL, std::move(reason)}; }
  /// BeforeJobSchedule: go on with this payload.
  static decision payload(std::string json) { return decision{GW_DECIDE_PAYLOAD, std::move(json)}; }
  /// JobRecovery: the job runs again at this time, with so many attempts used; as they are if left out.
  template <class Duration>
  static decision reschedule(std::chrono::time_point<std::chrono::system_clock, Duration> run_at,
                             std::optional<std::int32_t> attempts = {}) {
    decision made{GW_DECIDE_RESCHEDULE};
    made.run_at_us_ = detail::to_us(detail::to_time(run_at));
    made.attempts_ = attempts.value_or(-1);
    return made;
  }
  /// JobRecovery: the attempt counts as failed, and is tried again after its backoff.
  static decision fail_with_backoff() { return decision{GW_DECIDE_FAIL_WITH_BACKOFF}; }

 private:
  friend class worker;
  explicit decision(std::int32_t code, std::string text = {}) : code_(code), text_(std::move(text)) {}

  std::int32_t code_;
  std::string text_;
  std::int64_t run_at_us_ = 0;
  std::int32_t attempts_ = -1;
};

/// What a pull answers: GW_OK with something, or else why there is nothing.
template <class T>
struct pulled {
  /// GW_OK; GW_CANCELLED, with a job of earlier that should end; GW_TIMEOUT; GW_WOKEN; GW_STOPPED: nothing will ever come.
  gw_status_t status;
  T value;

  /// Whether the status is GW_OK.
  explicit operator bool() const noexcept { return status == GW_OK; }
  T& operator*() noexcept { return value; }
  T* operator->() noexcept { return &value; }
};

/// How worker::stop stops.
enum class stop_mode : std::int32_t {
  graceful = GW_STOP_GRACEFUL,  ///< Running jobs may go on for the config's shutdown_grace_period.
  abort = GW_STOP_ABORT,        ///< They are cancelled at once.
};

/// Where a worker is in its life.
enum class worker_state : std::int32_t {
  fresh = GW_STATE_NEW,
  running = GW_STATE_RUNNING,
  stopping = GW_STATE_STOPPING,
  stopped = GW_STATE_STOPPED,
  failed = GW_STATE_FAILED,
};

/// Runs jobs, on threads of the library's. Thread-safe.
///
/// Waiting calls (run, run_once, wait, flush, next) throw error with GW_ERR_DEADLOCK on a thread of the library, such as
/// within a task.
class worker {
 public:
  /// Connects to nothing yet. Throws error with GW_ERR_CONFIG.
  explicit worker(const config& settings) {
    gw_worker_t* made = nullptr;
    detail::call(gw_worker_new, settings.get(), &made);
    handle_.reset(made);
  }
  // The destructor aborts a worker that runs, and waits for it, no longer than the grace period and a second.

  /// Runs the jobs of this name by calling `task`, on `threads` threads at once. Before start. An exception fails the
  /// attempt. Options: `timeout` (a duration), `backoff` (`"fixed 10s"`, `"linear 10s 1h"`, `"exponential 10s 1h"`).
  ///
  /// ```cpp
  /// worker.task("send_email", [&](job& job) { mailer.send(job.payload()); }, {{"timeout", 30s}});
  /// ```
  worker& task(std::string_view name, std::function<void(job&)> task, options settings = {}) {
    using function = std::function<void(job&)>;
    return add(name, box(std::move(task)), run_task, detail::destroy<function>, settings);
  }

  /// The same for jobs that carry a JSON array: `task` answers a result for each item, in their order, and only those that
  /// failed stay for the next attempt. Another number of results, or an exception, fails them all.
  worker& batch_task(std::string_view name, std::function<item_results(job&)> task, options settings = {}) {
    using function = std::function<item_results(job&)>;
    return add(name, box(std::move(task)), run_batch_task, detail::destroy<function>, settings);
  }

  /// Jobs of this name are handed out by next(), instead of calling a function. A worker's tasks are all called or all pulled.
  worker& pulled_task(std::string_view name, options settings = {}) { return add(name, nullptr, nullptr, nullptr, settings); }

  /// Sets an option of a task that was added: `timeout`, `backoff`. Before start. Throws error with GW_ERR_CONFIG.
  worker& task_option(std::string_view task_name, std::string_view key, const value& setting) {
    detail::call(gw_worker_set_task_option, get(), detail::text{task_name}.c_str(), detail::text{key}.c_str(),
                 detail::text{setting.text()}.c_str());
    return *this;
  }

  /// Adds jobs by the clock: crontab text, many lines if need be. Throws error with GW_ERR_CRONTAB, naming line and column.
  worker& crontab(std::string_view text) {
    detail::call(gw_worker_add_crontab, get(), detail::text{text}.c_str());
    return *this;
  }

  /// Calls `observer` for events of this name, on one thread, one after the other (WorkerInit and JobStart: where they
  /// happen). Before start. What it throws is printed to stderr, and changes nothing.
  worker& on(std::string_view name, std::function<void(const event&)> observer) {
    using function = std::function<void(const event&)>;
    const detail::text event_name{name};
    detail::call(gw_worker_on_event, get(), event_name.c_str(), observe, box(std::move(observer)), detail::destroy<function>);
    return *this;
  }

  /// Events of this name are handed out by next_event().
  worker& queue_events(std::string_view name) {
    detail::call(gw_worker_on_event, get(), detail::text{name}.c_str(), nullptr, nullptr, nullptr);
    return *this;
  }

  /// Lets `interceptor` decide at BeforeJobRun, AfterJobRun, BeforeJobSchedule or JobRecovery, on the thread where it happens.
  /// Before start. An exception fails the attempt (BeforeJobRun), refuses the job (BeforeJobSchedule), or changes nothing.
  worker& intercept(std::string_view name, std::function<decision(const event&)> interceptor) {
    using function = std::function<decision(const event&)>;
    const detail::text event_name{name};
    detail::call(gw_worker_intercept, get(), event_name.c_str(), decide, box(std::move(interceptor)), detail::destroy<function>);
    return *this;
  }

  /// Connects, installs the schema, and runs jobs until stop(). Returns once it runs. Throws error if it cannot.
  void start() { detail::call(gw_worker_start, get(), GW_RUN_FOREVER); }
  /// The same, until no job is due.
  void start_once() { detail::call(gw_worker_start, get(), GW_RUN_ONCE); }
  /// start() and wait().
  void run() { detail::call(gw_worker_run, get()); }
  /// start_once() and wait(). Adds no jobs of the crontab, also none that `fill` would make up for.
  void run_once() { detail::call(gw_worker_run_once, get()); }

  /// Asks the worker to stop, and does not wait for it. May be called from a signal handler.
  void stop(stop_mode mode = stop_mode::graceful) noexcept { gw_worker_request_stop(get(), static_cast<std::int32_t>(mode)); }

  /// Until the worker has ended. Throws error with GW_ERR_STUCK, naming them, if there are handlers that did not return.
  void wait() { detail::call(gw_worker_wait, get(), std::int64_t{-1}); }
  /// The same, for a while; answers whether it has ended.
  bool wait(std::chrono::milliseconds timeout) { return detail::call(gw_worker_wait, get(), detail::to_ms(timeout)) == GW_OK; }

  /// Until every outcome given so far is in the database.
  void flush() { detail::call(gw_worker_flush, get(), std::int64_t{-1}); }
  /// The same, for a while; answers whether they are.
  bool flush(std::chrono::milliseconds timeout) { return detail::call(gw_worker_flush, get(), detail::to_ms(timeout)) == GW_OK; }

  worker_state state() const noexcept { return static_cast<worker_state>(gw_worker_state(get())); }
  /// The id under which it locks jobs; empty before the first start, and another one after the next.
  std::optional<std::string_view> id() const { return detail::optional_view(gw_worker_id(get())); }
  /// Its own client; not owned, valid as long as the worker. Throws error with GW_ERR_STATE before the first start.
  graphile_worker::client client() const {
    gw_client_t* borrowed = gw_worker_client(get());
    if (!borrowed) throw error{GW_ERR_STATE, "a worker has a client once it was started; make one of your own before that"};
    return client::borrowed(borrowed);
  }

  /// The next job of a pulled task, started. At most `concurrency` unfinished jobs are handed out at once.
  ///
  /// ```cpp
  /// while (auto job = worker.next()) job->complete();
  /// ```
  [[nodiscard]] pulled<pending_job> next() { return pull(-1); }
  /// The same, for a while.
  [[nodiscard]] pulled<pending_job> next(std::chrono::milliseconds timeout) { return pull(detail::to_ms(timeout)); }
  /// Up to `capacity` jobs, as soon as there are any.
  [[nodiscard]] pulled<std::vector<pending_job>> next_batch(std::size_t capacity) { return pull_batch(capacity, -1); }
  /// The same, for a while.
  [[nodiscard]] pulled<std::vector<pending_job>> next_batch(std::size_t capacity, std::chrono::milliseconds timeout) {
    return pull_batch(capacity, detail::to_ms(timeout));
  }
  /// For poll(2) and the like: readable while next(0ms) would have something to say. Never read or close it.
  int fd() const noexcept { return gw_worker_fd(get()); }
  /// Lets one next() that waits, or the next one, answer GW_WOKEN. May be called from a signal handler.
  void wakeup() noexcept { gw_worker_wakeup(get()); }

  /// The next event of those that are queued.
  [[nodiscard]] pulled<event> next_event() { return pull_event(-1); }
  /// The same, for a while.
  [[nodiscard]] pulled<event> next_event(std::chrono::milliseconds timeout) { return pull_event(detail::to_ms(timeout)); }
  /// For poll(2) and the like: readable while next_event(0ms) would have something to say. Never read or close it.
  int event_fd() const noexcept { return gw_worker_event_fd(get()); }

  /// What it has done so far, and is doing now.
  gw_stats_t stats() const {
    gw_stats_t counted{};
    counted.struct_size = sizeof counted;
    detail::check(gw_worker_stats(get(), &counted));
    return counted;
  }
  /// The same and more, as JSON.
  std::string stats_json() const { return detail::take(gw_worker_stats_json(get())); }

  /// For calls of graphile_worker.h.
  gw_worker_t* get() const noexcept { return handle_.get(); }

 private:
  template <class Function>
  static Function* box(Function function) {
    if (!function) throw error{GW_ERR_INVALID, "an empty std::function cannot be called"};
    return new Function(std::move(function));
  }

  /// `boxed` is the library's from the call on, whether it succeeds or not; before it nothing may throw.
  worker& add(std::string_view name, void* boxed, gw_task_fn function, gw_free_fn free_fn, options settings) {
    std::unique_ptr<void, gw_free_fn> owned{boxed, free_fn};
    const detail::text task_name{name};
    detail::call(gw_worker_add_task, get(), task_name.c_str(), function, owned.release(), free_fn);
    for (const auto& [key, setting] : settings) task_option(name, key, setting);
    return *this;
  }

  /// The door: no exception passes.
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
      return GW_TASK_DONE;  // The items have said what counts.
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
      return 0;  // No decision: the library takes it for a panic of the hook.
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

/// Crontab text, for previews; worker::crontab is what runs it.
///
/// ```cpp
/// for (auto time : crontab{"0 8 * * 1 report ?tz=Europe/Berlin"}.next(0, std::chrono::system_clock::now(), 3)) …
/// ```
class crontab {
 public:
  /// Throws error with GW_ERR_CRONTAB, naming line and column.
  explicit crontab(std::string_view text) {
    gw_crontab_t* parsed = nullptr;
    detail::call(gw_crontab_parse, detail::text{text}.c_str(), &parsed);
    handle_.reset(parsed);
  }

  /// How many entries it has.
  std::size_t size() const noexcept { return gw_crontab_len(get()); }
  /// An entry as JSON, `{"identifier", "task"}`; empty past the end.
  std::optional<std::string> item(std::size_t index) const { return detail::take_optional(gw_crontab_item_json(get(), index)); }
  /// When an entry comes due after a time, up to `count` times; fewer if it never does.
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

/// How much is logged: this and what is worse.
enum class log_level : std::int32_t {
  off = GW_LOG_OFF,
  error = GW_LOG_ERROR,
  warn = GW_LOG_WARN,
  info = GW_LOG_INFO,
  debug = GW_LOG_DEBUG,
  trace = GW_LOG_TRACE,
};

/// A line of the log; its texts are valid within the sink only.
struct log_record {
  time_point time;
  log_level level;
  std::string_view target;
  std::string_view message;
  /// A JSON object: job_id, task, worker_id, error, …
  std::string_view fields;
};

/// Lets `sink` have the log of the whole process, from any thread. Returns when the sink before is idle. What it throws is
/// dropped, and so is what the library would log while it runs.
///
/// ```cpp
/// log_to([](const log_record& line) { std::clog << line.message << ' ' << line.fields << '\n'; }, log_level::info);
/// ```
inline void log_to(std::function<void(const log_record&)> sink, log_level max_level = log_level::info) {
  using function = std::function<void(const log_record&)>;
  if (!sink) throw error{GW_ERR_INVALID, "an empty std::function cannot be called; log_to_stderr takes the sink away"};
  const gw_log_fn write = [](const gw_log_record_t* line, void* boxed) noexcept {
    try {
      detail::unbox<function>(boxed)({detail::from_us(line->time_us), static_cast<log_level>(line->level),
                                      detail::view(line->target), detail::view(line->message), detail::view(line->fields)});
    } catch (...) {
      // There is no log of the log.
    }
  };
  detail::check(gw_log_set_sink(write, new function(std::move(sink)), detail::destroy<function>, static_cast<std::int32_t>(max_level)));
}

/// Keeps the log of the whole process for next_log(), in place of a sink, for programs that want no calls from foreign
/// threads. At most 1024 lines wait; an event `EventsDropped` says how many found no room.
inline void queue_log(log_level max_level = log_level::info) {
  detail::check(gw_log_set_queue(static_cast<std::int32_t>(max_level)));
}

/// The next line of the log that waits: an event named by its level, whose JSON has time_us, target, message and fields.
/// GW_STOPPED if lines are not kept (any more).
[[nodiscard]] inline pulled<event> next_log(std::chrono::milliseconds timeout) {
  gw_event_t* line = nullptr;
  const gw_status_t status = detail::call(gw_log_next, detail::to_ms(timeout), &line);
  return {status, event{line}};
}

/// Takes the sink away and lets the log go to stderr, as it does at first, at level warn.
inline void log_to_stderr(log_level max_level = log_level::warn) {
  detail::check(gw_log_set_sink(nullptr, nullptr, nullptr, static_cast<std::int32_t>(max_level)));
}

}  // namespace graphile_worker

#endif  // GRAPHILE_WORKER_HPP
