//! The results of benches/peers.rs: a file of raw values for each scenario, and one page with tables and plots of all.
//! Knows nothing of servers and drivers.

use crate::common::median;
use crate::plot;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const SCENARIOS: [&str; 4] = ["drain", "snapshot", "fleet", "latency"];
const COLUMNS: &str =
    "round\tpeer\tsettings\tat\tjobs\tseconds\tclient_cpu\tserver_cpu\trss\twal\tcommits\tdead\tp50\tp99";

/// One run. The costs are for each job: seconds of CPU, bytes of write-ahead log, commits, dead rows.
#[derive(Clone, Default)]
pub struct Sample {
    pub round: i64,
    pub peer: String,
    pub settings: String,
    /// The number of processes of a fleet, or of dead jobs behind a snapshot.
    pub at: i64,
    pub jobs: i64,
    pub seconds: f64,
    pub client_cpu: f64,
    pub server_cpu: f64,
    /// The peak, in MiB.
    pub rss: f64,
    pub wal: f64,
    pub commits: f64,
    pub dead: f64,
    /// Latencies in milliseconds, 0 if they were not measured.
    pub p50: f64,
    pub p99: f64,
}

impl Sample {
    /// Returns the columns of the file.
    pub fn line(&self) -> String {
        let keys = format!("{}\t{}\t{}\t{}\t{}", self.round, self.peer, self.settings, self.at, self.jobs);
        let costs = format!("{:.3}\t{:.3e}\t{:.3e}\t{:.1}", self.seconds, self.client_cpu, self.server_cpu, self.rss);
        let rows = format!("{:.0}\t{:.4}\t{:.3}\t{:.3}\t{:.3}", self.wal, self.commits, self.dead, self.p50, self.p99);
        format!("{keys}\t{costs}\t{rows}")
    }

    fn parse(line: &str) -> Self {
        let mut words = line.split('\t');
        let mut word = || words.next().expect("a column");
        let [round, peer, settings, at, jobs] = std::array::from_fn(|_| word());
        let number = |text: &str| text.parse::<i64>().expect("a number");
        let [seconds, client_cpu, server_cpu, rss, wal, commits, dead, p50, p99] =
            std::array::from_fn(|_| word().parse::<f64>().expect("a number"));
        let (peer, settings) = (peer.to_owned(), settings.to_owned());
        let (round, at, jobs) = (number(round), number(at), number(jobs));
        Self { round, peer, settings, at, jobs, seconds, client_cpu, server_cpu, rss, wal, commits, dead, p50, p99 }
    }

    fn rate(&self) -> f64 {
        self.jobs as f64 / self.seconds
    }
}

/// The results of one scenario.
pub struct Results {
    scenario: &'static str,
    facts: String,
    samples: Vec<Sample>,
    /// Whether the file may be written.
    is_whole: bool,
}

impl Results {
    /// Continues the file if it has the same facts.
    pub fn new(scenario: &'static str, facts: &str, is_whole: bool) -> Self {
        let before = Self::read(scenario).filter(|before| is_whole && before.facts == facts);
        let samples = before.map_or_else(Vec::new, |before| before.samples);
        Self { scenario, facts: facts.to_owned(), samples, is_whole }
    }

    fn read(scenario: &'static str) -> Option<Self> {
        let text = std::fs::read_to_string(file(&format!("peers-{scenario}.tsv"))).ok()?;
        let (facts, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("# "));
        let facts = facts.iter().map(|line| &line[2..]).collect::<Vec<_>>().join("\n");
        let samples = lines.into_iter().skip(1).map(Sample::parse).collect();
        Some(Self { scenario, facts, samples, is_whole: true })
    }

    pub fn next_round(&self) -> i64 {
        self.samples.iter().map(|sample| sample.round).max().unwrap_or(0) + 1
    }

    pub fn add(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    pub fn write(&self) {
        if self.is_whole {
            let facts = self.facts.lines().map(|line| format!("# {line}"));
            let lines = facts.chain([COLUMNS.to_owned()]).chain(self.samples.iter().map(Sample::line));
            save(&format!("peers-{}.tsv", self.scenario), &(lines.collect::<Vec<_>>().join("\n") + "\n"));
        }
    }

    /// The peers with their settings, in the order of the runs.
    fn runners(&self) -> Vec<(&str, &str)> {
        let mut runners: Vec<(&str, &str)> = Vec::new();
        for sample in &self.samples {
            let runner = (&*sample.peer, &*sample.settings);
            if !runners.contains(&runner) {
                runners.push(runner);
            }
        }
        runners
    }

    /// The runs of one peer, one in each round.
    fn of(&self, (peer, settings): (&str, &str), at: i64) -> Vec<&Sample> {
        let is = |sample: &&Sample| sample.peer == peer && sample.settings == settings && sample.at == at;
        self.samples.iter().filter(is).collect()
    }

    fn points(&self, runner: (&str, &str)) -> BTreeSet<i64> {
        let of = self.samples.iter().filter(|sample| (&*sample.peer, &*sample.settings) == runner);
        of.map(|sample| sample.at).collect()
    }

    /// Returns how many times faster this library is with the same settings, in each round.
    fn ratios(&self, (peer, settings): (&str, &str), at: i64) -> Vec<f64> {
        let ours = self.of(("ours", settings), at);
        let theirs = self.of((peer, settings), at);
        let pair = |own: &&Sample| Some(own.rate() / theirs.iter().find(|their| their.round == own.round)?.rate());
        ours.iter().filter_map(pair).collect()
    }

    /// Returns the table of the scenario.
    pub fn markdown(&self) -> String {
        match self.scenario {
            "drain" => self.drain_table(),
            "latency" => self.latency_table(),
            _ => self.table_of_points(),
        }
    }

    fn drain_table(&self) -> String {
        let heads = ["", "settings", "jobs/s", "ours is faster by", "client CPU s / 100k", "server CPU s / 100k"];
        let more = ["peak RSS MiB", "WAL bytes / job", "commits / job", "dead rows / job"];
        table(
            heads.into_iter().chain(more),
            self.runners().into_iter().map(|runner| {
                let runs = self.of(runner, 0);
                let of = |value: fn(&Sample) -> f64| median(runs.iter().map(|run| value(run)).collect());
                vec![
                    runner.0.to_owned(),
                    runner.1.to_owned(),
                    spread(runs.iter().map(|run| run.rate()).collect(), 0),
                    if runner.0 == "ours" { "1".into() } else { spread(self.ratios(runner, 0), 2) },
                    format!("{:.2}", of(|run| run.client_cpu * 1e5)),
                    format!("{:.2}", of(|run| run.server_cpu * 1e5)),
                    format!("{:.0}", of(|run| run.rss)),
                    format!("{:.0}", of(|run| run.wal)),
                    format!("{:.3}", of(|run| run.commits)),
                    format!("{:.2}", of(|run| run.dead)),
                ]
            }),
        )
    }

    fn latency_table(&self) -> String {
        let heads = ["", "settings", "p50 ms", "p99 ms", "client CPU ms / job", "server CPU ms / job", "commits / job"];
        table(
            heads.into_iter(),
            self.runners().into_iter().map(|runner| {
                let runs = self.of(runner, 0);
                let of = |value: fn(&Sample) -> f64| spread(runs.iter().map(|run| value(run)).collect(), 2);
                vec![
                    runner.0.to_owned(),
                    runner.1.to_owned(),
                    of(|run| run.p50),
                    of(|run| run.p99),
                    of(|run| run.client_cpu * 1e3),
                    of(|run| run.server_cpu * 1e3),
                    of(|run| run.commits),
                ]
            }),
        )
    }

    /// A row for each peer, and a column for each number of processes or dead jobs that this library was measured at.
    fn table_of_points(&self) -> String {
        let points = self.points(("ours", "best"));
        let heads = points.iter().map(|point| match self.scenario {
            "fleet" => format!("{point} × jobs/s"),
            _ => format!("{point} dead"),
        });
        let heads = [String::new()].into_iter().chain(heads);
        table(
            heads,
            self.runners().into_iter().map(|runner| {
                let cells = points.iter().map(|&point| match self.of(runner, point) {
                    runs if runs.is_empty() => "—".to_owned(),
                    runs => {
                        let rate = spread(runs.iter().map(|run| run.rate()).collect(), 0);
                        let ratio = median_of(self.ratios(runner, point));
                        if runner.0 == "ours" { rate } else { format!("{rate}, ours × {ratio:.2}") }
                    }
                });
                [runner.0.to_owned()].into_iter().chain(cells).collect()
            }),
        )
    }

    fn plot(&self) -> String {
        let rate = |run: &&Sample| run.rate();
        let rows = |of: &dyn Fn(&Sample) -> Vec<f64>| -> Vec<plot::Row> {
            let row = |runner: (&str, &str)| {
                let runs: Vec<Vec<f64>> = self.of(runner, 0).into_iter().map(of).collect();
                let dots = (0..runs[0].len()).map(|dot| runs.iter().map(|run| run[dot]).collect()).collect();
                plot::Row { label: format!("{}, {}", runner.0, runner.1), peer: runner.0.to_owned(), dots }
            };
            self.runners().into_iter().map(row).collect()
        };
        let series = || {
            let line = |runner: (&str, &str)| {
                let at = |point| (point as f64, self.of(runner, point).iter().map(rate).collect());
                plot::Line { peer: runner.0.to_owned(), points: self.points(runner).into_iter().map(at).collect() }
            };
            self.runners().into_iter().map(line).collect::<Vec<_>>()
        };
        match self.scenario {
            "drain" => plot::rows("No-op jobs per second", &rows(&|run| vec![run.rate()])),
            "latency" => {
                plot::rows("Milliseconds from commit to handler: p50 and p99", &rows(&|run| vec![run.p50, run.p99]))
            }
            "fleet" => plot::lines("Jobs per second of 1, 4 and 16 processes", "processes", true, &series()),
            _ => plot::lines("Jobs per second beside an open snapshot", "dead jobs", false, &series()),
        }
    }
}

/// Writes the page and the plots of all scenarios that have a file.
pub fn render() {
    let mut page = String::from(INTRODUCTION);
    for results in SCENARIOS.into_iter().filter_map(Results::read) {
        let Results { scenario, facts, .. } = &results;
        save(&format!("peers-{scenario}.svg"), &results.plot());
        let (title, text) = SECTIONS[SCENARIOS.iter().position(|name| name == scenario).expect("known")];
        let rounds = results.next_round() - 1;
        let rounds = if rounds == 1 { "One round".to_owned() } else { format!("{rounds} rounds") };
        let _ = write!(page, "\n## {title}\n\n{text}\n\n![{title}](peers-{scenario}.svg)\n\n{}\n", results.markdown());
        let _ = write!(page, "{rounds}. ");
        let _ = writeln!(page, "{}.", facts.lines().collect::<Vec<_>>().join("; "));
    }
    save("peers.md", &page);
}

const INTRODUCTION: &str = "# This library and its peers

`make bench BENCH=peers` writes this page; `benches/peers.rs` describes what it measures and how. All run in turn on one
private server on one machine, with fsync on. A number is the median of the rounds, with the least and the most in
brackets. `default` are the settings of each program as it comes, `best` those that its authors document for speed, as
`benches/peers` says for each. `ours` is this library, `floor` the bare statements without any worker, `async` the async
crate. The raw values are in the files `peers-*.tsv` beside this page.
";

const SECTIONS: [(&str, &str); 4] = [
    (
        "Drain",
        "No-op jobs, from the start of the worker until none is left. `ours is faster by` compares the runs of each round with the\nsame settings. A dead row is one that an update or a delete leaves behind.",
    ),
    (
        "Beside an open snapshot",
        "One transaction stays open, so that vacuum removes no dead row. Jobs are added and drained again and again, with best\nsettings. A dash: this peer did not get that far in its time.",
    ),
    ("Fleets", "Processes that drain together, 10 jobs at once in one process, otherwise 2 in each."),
    (
        "Latency",
        "An idle worker gets 100 jobs a second. The time from the commit of a job until its handler runs. CPU of\nthe server and commits include those that add the job.",
    ),
];

/// Returns the kind of this machine, without its name.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).expect("a system with /proc");
    let value = |text: String, name: &str| -> Option<String> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let model = value(read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown model".into());
    let memory = value(read("/proc/meminfo"), "MemTotal").expect("the memory");
    let memory: f64 = memory.trim_end_matches(" kB").parse().expect("a number");
    format!("{cpus} CPUs ({model}), {:.0} GiB, {}", memory / 1048576.0, std::env::consts::OS)
}

/// Returns the commit of the working tree.
pub fn commit() -> String {
    let git = |words: &[&str]| {
        let output = Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(words).output();
        output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = !git(&["status", "--porcelain", "--", ".", ":!benches/results"]).is_empty();
    let commit = git(&["rev-parse", "--short", "HEAD"]);
    format!("commit {commit}{}", if changed { " with changes" } else { "" })
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results").join(name)
}

fn save(name: &str, text: &str) {
    let path = file(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("making benches/results");
    std::fs::write(&path, text).expect("writing a result");
}

fn table(heads: impl Iterator<Item = impl Into<String>>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let heads: Vec<String> = heads.map(Into::into).collect();
    let rule = heads.iter().enumerate().map(|(place, _)| if place == 0 { "---" } else { "---:" }.to_owned()).collect();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    [heads.clone(), rule].into_iter().chain(rows).map(line).collect()
}

/// Returns the median, and if there are more values the least and the most.
fn spread(values: Vec<f64>, digits: usize) -> String {
    let of = |fold: fn(f64, f64) -> f64| values.iter().copied().reduce(fold).unwrap_or(f64::NAN);
    let (least, most, middle) = (of(f64::min), of(f64::max), median_of(values.clone()));
    if values.len() < 2 {
        format!("{middle:.digits$}")
    } else {
        format!("{middle:.digits$} ({least:.digits$}–{most:.digits$})")
    }
}

fn median_of(values: Vec<f64>) -> f64 {
    if values.is_empty() { f64::NAN } else { median(values) }
}
