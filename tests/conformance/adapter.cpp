// adapter.cpp: executes the commands of tests/it/conformance.rs through the C++ binding. One command per line on stdin,
// one reply per line on stdout, fields separated by tabs. Decides nothing.
#include <algorithm>
#include <cstdlib>
#include <functional>
#include <graphile_worker.hpp>
#include <iostream>
#include <map>
#include <mutex>
#include <sstream>
#include <thread>

namespace gw = graphile_worker;
using namespace std::chrono_literals;
using strings = std::vector<std::string>;

namespace {

// The notes of tasks for `ran`, and of observers for `events`. Threads of the library write them.
class notes {
 public:
  void add(std::string text) {
    const std::lock_guard guard{lock_};
    texts_.push_back(std::move(text));
  }
  strings take() {
    const std::lock_guard guard{lock_};
    return std::exchange(texts_, {});
  }

 private:
  std::mutex lock_;
  strings texts_;
};

// Never destroyed: a task that still sleeps at the end may write a note later.
notes &ran = *new notes, &events = *new notes;
std::optional<gw::client> client;
std::optional<gw::worker> worker;
std::vector<gw::spec> remembered;  // For add_many.

strings split(const std::string& text, char separator) {
  strings parts;
  std::istringstream in{text};
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  if (!text.empty() && text.back() == separator) parts.emplace_back();
  return parts;
}

std::pair<std::string, std::string> key_and_value(const std::string& field) {
  const auto equals = std::min(field.find('='), field.size());
  return {field.substr(0, equals), equals < field.size() ? field.substr(equals + 1) : ""};
}

bool starts_with(const std::string& text, std::string_view start) { return text.compare(0, start.size(), start) == 0; }

std::vector<std::int64_t> to_ids(const std::string& list) {
  std::vector<std::int64_t> ids;
  for (const auto& id : split(list, ',')) ids.push_back(std::stoll(id));
  return ids;
}

strings to_strings(const std::vector<std::int64_t>& numbers) {
  strings texts;
  for (const auto number : numbers) texts.push_back(std::to_string(number));
  return texts;
}

gw::time_point to_time(const std::string& microseconds) {
  return gw::time_point{std::chrono::microseconds{std::stoll(microseconds)}};
}

// ---- The standard tasks. ----

void wait(gw::job& job) {
  while (!job.is_cancelled()) std::this_thread::sleep_for(2ms);
  ran.add("wait:cancelled:");
  throw std::runtime_error{"cancelled"};
}

const std::map<std::string, std::function<void(gw::job&)>> tasks{
    {"ok", [](gw::job&) {}},
    {"fail", [](gw::job& job) { throw std::runtime_error{std::string{job.payload()}}; }},
    {"throw", [](gw::job& job) { throw std::invalid_argument{std::string{job.payload()}}; }},
    {"fail_twice",
     [](gw::job& job) {
       if (job.attempts() < 3) throw std::runtime_error{"attempt " + std::to_string(job.attempts())};
     }},
    {"wait", wait},
    {"sleep", [](gw::job& job) { std::this_thread::sleep_for(std::chrono::milliseconds{std::stol(std::string{job.payload()})}); }},
    {"snooze", [](gw::job& job) { job.snooze(1h); }},
    {"later",
     [](gw::job& job) {
       job.retry_after(1h);
       throw std::runtime_error{"later"};
     }},
    {"spawn", [](gw::job& job) { job.client().add(gw::spec{"ok"}.payload(job.payload())); }},
};

gw::item_results batch(gw::job& job) {
  gw::item_results results;
  std::string numbers{job.payload()};
  std::replace_if(numbers.begin(), numbers.end(), [](char c) { return c == '[' || c == ']' || c == ','; }, ' ');
  std::istringstream in{numbers};
  for (long item; in >> item;) results.push_back(item < 0 ? std::optional<std::string>{"negative"} : std::nullopt);
  return results;
}

void note_run(const gw::job& job, std::string_view what) {
  ran.add(std::string{job.task()} + ':' + std::to_string(job.attempts()) + ':' + std::string{what});
}

void add_standard_task(const std::string& name) {
  if (name == "batch") {
    worker->batch_task(name, [](gw::job& job) {
      note_run(job, job.payload());
      return batch(job);
    });
  } else if (name == "trace") {
    worker->task(name, [](gw::job& job) { note_run(job, job.traceparent().value_or("")); });
  } else {
    worker->task(name, [task = tasks.at(name)](gw::job& job) {
      note_run(job, job.payload());
      task(job);
    });
  }
}

// ---- Commands. They return the fields of their reply; fields[0] is the command. ----

gw::config new_config() {
  gw::config config;
  if (const char* url = std::getenv("DATABASE_URL")) config.set("database_url", url);
  return config;
}

strings make_client(const strings& fields) {
  auto config = new_config();
  for (std::size_t i = 1; i < fields.size(); ++i) {
    const auto [key, value] = key_and_value(fields[i]);
    config.set(key, value);
  }
  client.reset();
  client.emplace(config);
  return {};
}

gw::spec new_spec(const strings& fields) {
  static const std::map<std::string, gw::key_mode> modes{{"replace", gw::key_mode::replace},
                                                         {"preserve_run_at", gw::key_mode::preserve_run_at},
                                                         {"unsafe_dedupe", gw::key_mode::unsafe_dedupe}};
  gw::spec spec{fields.at(1)};
  spec.payload(fields.at(2));
  std::optional<std::string> key_of_job;
  std::optional<gw::key_mode> mode;
  for (std::size_t i = 3; i < fields.size(); ++i) {
    const auto [key, value] = key_and_value(fields[i]);
    if (key == "queue") spec.queue(value);
    if (key == "run_at_us") spec.run_at(to_time(value));
    if (key == "max_attempts") spec.max_attempts(std::stoi(value));
    if (key == "priority") spec.priority(std::stoi(value));
    if (key == "flag") spec.flag(value);
    if (key == "traceparent") spec.traceparent(value);
    if (key == "key") key_of_job = value;
    if (key == "key_mode") mode = modes.at(value);
  }
  if (key_of_job) spec.key(*key_of_job, mode.value_or(gw::key_mode::replace));
  else if (mode) gw_spec_set_key(spec.get(), nullptr, static_cast<std::int32_t>(*mode));  // The library refuses it.
  return spec;
}

strings make_worker(const strings& fields) {
  auto config = new_config();
  strings names{"batch", "trace"};
  for (const auto& [name, task] : tasks) names.push_back(name);
  std::vector<std::function<void()>> set_up;  // Steps that need the worker and its tasks.
  for (std::size_t i = 1; i < fields.size(); ++i) {
    const auto pair = key_and_value(fields[i]);
    const auto &key = pair.first, &value = pair.second;
    if (key == "tasks") {
      names = split(value, ',');
    } else if (key == "crontab") {
      set_up.push_back([value] { worker->crontab(value); });
    } else if (key == "hook" && (starts_with(value, "Before") || value == "AfterJobRun" || value == "JobRecovery")) {
      set_up.push_back([value] {
        worker->intercept(value, [](const gw::event& event) {
          events.add(std::string{event.name()});
          return gw::decision::proceed();
        });
      });
    } else if (key == "hook") {
      set_up.push_back([value] { worker->on(value, [](const gw::event& event) { events.add(std::string{event.name()}); }); });
    } else if (starts_with(key, "task.")) {
      const auto dot = key.rfind('.');
      set_up.push_back([name = key.substr(5, dot - 5), option = key.substr(dot + 1), value] {
        worker->task_option(name, option, value);
      });
    } else {
      config.set(key, value);
    }
  }
  worker.reset();
  worker.emplace(config);
  for (const auto& name : names) add_standard_task(name);
  for (const auto& step : set_up) step();
  return {};
}

gw::cleanup_task cleanup_tasks(const std::string& list) {
  auto tasks_to_do = gw::cleanup_task{};
  for (const auto& name : split(list, ',')) {
    if (name == "delete_permafailed") tasks_to_do = tasks_to_do | gw::cleanup_task::delete_permafailed;
    if (name == "gc_tasks") tasks_to_do = tasks_to_do | gw::cleanup_task::gc_tasks;
    if (name == "gc_queues") tasks_to_do = tasks_to_do | gw::cleanup_task::gc_queues;
  }
  return tasks_to_do;
}

strings next_runs(const strings& fields) {
  std::vector<std::int64_t> microseconds;
  for (const auto time : gw::crontab{fields.at(1)}.next(0, to_time(fields.at(2)), std::stoul(fields.at(3)))) {
    microseconds.push_back(time.time_since_epoch().count());
  }
  return to_strings(microseconds);
}

strings add_many() {
  const auto specs = std::exchange(remembered, {});
  return to_strings(client.value().add_all(specs));
}

strings close_all() {
  worker.reset();
  client.reset();
  return {};
}

using command = std::function<strings(const strings&)>;
const std::map<std::string, command> commands{
    {"client", make_client},
    {"add", [](const strings& f) { return strings{std::to_string(client.value().add(new_spec(f)))}; }},
    {"and", [](const strings& f) { remembered.push_back(new_spec(f)); return strings{}; }},
    {"add_many", [](const strings&) { return add_many(); }},
    {"remove", [](const strings& f) { return strings{client.value().remove(f.at(1)) ? "true" : "false"}; }},
    {"job", [](const strings& f) { return strings{client.value().job(std::stoll(f.at(1))).value_or("none")}; }},
    {"list", [](const strings& f) { return strings{client.value().list(f.at(1))}; }},
    {"stats", [](const strings&) { return strings{client.value().stats()}; }},
    {"queues", [](const strings&) { return strings{client.value().queues()}; }},
    {"locked_workers", [](const strings&) { return strings{client.value().locked_workers()}; }},
    {"active_workers",
     [](const strings& f) { return strings{client.value().active_workers(std::chrono::milliseconds{std::stoll(f.at(1))})}; }},
    {"complete", [](const strings& f) { return strings{client.value().complete(to_ids(f.at(1)))}; }},
    {"fail", [](const strings& f) { return strings{client.value().fail(to_ids(f.at(1)), f.at(2))}; }},
    {"reschedule", [](const strings& f) { return strings{client.value().reschedule(to_ids(f.at(1)), f.at(2))}; }},
    {"unlock", [](const strings& f) { return strings{client.value().force_unlock(split(f.at(1), ','))}; }},
    {"cleanup", [](const strings& f) { return strings{client.value().cleanup(cleanup_tasks(f.at(1)))}; }},
    {"sweep", [](const strings& f) { return strings{client.value().sweep_stale_workers(f.at(1))}; }},
    {"next_runs", next_runs},
    {"worker", make_worker},
    {"start", [](const strings&) { worker.value().start(); return strings{}; }},
    {"start_once", [](const strings&) { worker.value().start_once(); return strings{}; }},
    {"stop",
     [](const strings& f) {
       worker.value().stop(f.at(1) == "abort" ? gw::stop_mode::abort : gw::stop_mode::graceful);
       return strings{};
     }},
    {"wait",
     [](const strings& f) {
       return strings{worker.value().wait(std::chrono::milliseconds{std::stoll(f.at(1))}) ? "ended" : "timeout"};
     }},
    {"ran", [](const strings&) { return ran.take(); }},
    {"events", [](const strings&) { return events.take(); }},
    {"worker_stats", [](const strings&) { return strings{worker.value().stats_json()}; }},
    {"worker_id", [](const strings&) { return strings{std::string{worker.value().id().value_or("")}}; }},
    {"close", [](const strings&) { return close_all(); }},
};

std::string flat(std::string text) {
  std::replace_if(text.begin(), text.end(), [](char c) { return c == '\t' || c == '\n' || c == '\r'; }, ' ');
  return text;
}

std::string obey(const strings& fields) try {
  const auto found = commands.find(fields.at(0));
  if (found == commands.end()) throw gw::error{GW_ERR_UNSUPPORTED, "unknown command"};
  std::string reply = "ok";
  for (const auto& field : found->second(fields)) reply += '\t' + flat(field);
  return reply;
} catch (const gw::error& error) {
  const std::string sqlstate{error.sqlstate().empty() ? "-" : error.sqlstate()};
  return "error\t" + std::string{error.status_name()} + '\t' + sqlstate + '\t' + flat(error.what());
} catch (const std::exception& error) {
  return std::string{"error\tGW_ERR_INVALID\t-\t"} + flat(error.what());
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line) && line != "quit";) std::cout << obey(split(line, '\t')) << std::endl;
  close_all();
}
