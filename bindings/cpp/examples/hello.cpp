// hello.cpp: adds a job and runs it.
#include <graphile_worker.hpp>
#include <iostream>

namespace gw = graphile_worker;

int main() try {
  auto config = gw::config::from_env();  // DATABASE_URL
  gw::client client{config};
  client.migrate();
  client.add(gw::spec{"hello"}.payload(R"({"name": "Ada"})"));

  gw::worker worker{config};
  worker.task("hello", [](gw::job& job) {
    std::cout << "Hello! Attempt " << job.attempts() << " of job " << job.id() << ": " << job.payload() << '\n';
  });
  worker.run_once();  // run() runs until stop().
} catch (const gw::error& error) {
  std::cerr << error.status_name() << ": " << error.what() << '\n';
  return 1;
}
