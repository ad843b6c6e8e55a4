//! Odd inputs on a real kernel, while a container floods: what is told stays right, whole and valid, and nothing is lost.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::agent::ready;
use super::counted::{Counted, Passed, Read, read, read_to_the_end, read_until};
use super::storms::{Arena, bundle, order};
use crate::guest::{self, COMMAND_LIMIT, Guest};
use crate::process::{self, Dialogue};
use crate::report::Report;
use crate::{Failure, Result};

type Outcome = Result<std::result::Result<(), String>>;

const PID_MAX: &str = "/proc/sys/kernel/pid_max";
/// Below 300 the kernel gives no number again: this leaves two hundred.
const FEW_PIDS: &str = "500";
/// The clock is set on by so much.
const STEP: Duration = Duration::from_secs(24 * 3600);
/// A few alerts are read within this, whatever the clock says.
const STALL: Duration = Duration::from_secs(20);
/// What is told of a moment may differ from the clock by this.
const NEAR: Duration = Duration::from_secs(30);
/// Most bytes of arguments that are told.
const ARGUMENTS: usize = 4096;
/// Bytes that are no text, or end it, or change what a terminal shows.
const DIRECTORY: &[u8] = b"d\xff\x01\n\"\\\xe2\x80\xae";
const FILE: &[u8] = b"f\xfe\x1b[31m\x7f\xc3(";
const PROGRAM: &[u8] = b"p\xff\x02\n\xe2";

/// Runs this part of the suite beside the agent and the containers of the storms.
pub(super) fn run(guest: &Guest, report: &mut Report, root: &Path, arena: &mut Arena, agent: &mut Dialogue) -> Result<()> {
    let mut test = |name: &str, test: &mut dyn FnMut() -> Outcome| {
        let name = format!("monitor/storm/odd/{name}");
        if guest.wants(&name) {
            report.run(&name, test);
        }
    };
    test("short-lives", &mut || short_lives(guest, root, arena));
    test("numbers-again", &mut || numbers_again(guest, arena));
    test("bytes-that-are-no-text", &mut || no_text(guest, root, arena));
    test("arguments-of-64-KiB", &mut || long_arguments(guest, root, arena));
    // Back is the harder of the two, and followed by on again.
    if !guest.ci {
        test("clock-is-set", &mut || clock_is_set(guest, arena, true));
    }
    test("clock-is-set-back", &mut || clock_is_set(guest, arena, false));
    let restarts = [("agent-killed", Signal::KILL), ("agent-ends", Signal::TERM)];
    for (name, signal) in restarts.into_iter().take(if guest.ci { 1 } else { 2 }) {
        test(name, &mut || restarted(guest, arena, agent, signal));
    }
    Ok(())
}

/// Containers that do one thing and are gone before it is told, while another floods.
fn short_lives(guest: &Guest, root: &Path, arena: &mut Arena) -> Outcome {
    let count = guest.repetitions(2, 40);
    arena.begin(&order(("open", "/srv/secret"), 3_000, 1_000), &order(("open", "/srv/secret"), 1, 0))?;
    for number in 0..count as usize {
        let Some(&runtime) = guest.runtimes.get(number % guest.runtimes.len().max(1)) else { break };
        runtime.run(guest, &bundle(&format!("short-{number}"), root, &["/probe", "read", "/srv/secret"]))?;
    }
    arena.end()?;
    let lines = read(&mut arena.reader)?;
    let of = |id: &str, is_it: &dyn Fn(&Read) -> bool| lines.iter().filter(|read| read.is_of(id) && is_it(read)).count();
    let wrong: Vec<String> = (0..count)
        .map(|number| format!("short-{number}"))
        .map(|id| {
            let alerts = of(&id, &|read| read.is_alert() && read.line["object"] == "/srv/secret");
            let arguments = json!(["/probe", "read", "/srv/secret"]);
            (of(&id, &|read| read.is_execution() && read.line["process"]["args"] == arguments), alerts, id)
        })
        .filter(|(executions, alerts, _)| (*executions, *alerts) != (1, 1))
        .map(|(executions, alerts, id)| format!("{id}: {executions} executions, {alerts} alerts"))
        .collect();
    let unnamed = lines.iter().filter(|read| read.is_alert() && read.line["container"].is_null()).count();
    println!("# short lives: of {count} containers {} are not told right, {unnamed} alerts are nobody's", wrong.len());
    Ok(if wrong.is_empty() && unnamed == 0 { Ok(()) } else { Err(format!("{wrong:?}, and {unnamed} alerts are nobody's")) })
}

/// Processes get numbers that others had a moment before.
fn numbers_again(guest: &Guest, arena: &mut Arena) -> Outcome {
    let before = fs::read_to_string(PID_MAX).map_err(|source| Failure::io(PID_MAX, source))?;
    let (many, few) = if guest.ci { (180, 8) } else { (2_500, 50) };
    let (counted, before_it) = (Counted::now()?, Passed::now(guest)?);
    guest::write(Path::new(PID_MAX), FEW_PIDS.as_bytes())?;
    arena.begin(&order(("exec", "/srv/tiny"), many, 0), &order(("exec", "/srv/tiny"), few, 20_000))?;
    let done = arena.end();
    guest::write(Path::new(PID_MAX), before.trim().as_bytes())?;
    done?;
    let lines = read_until(&mut arena.reader, |lines| Passed::is_read(guest, before_it, lines))?;
    let (counted, passed) = (Counted::now()?.since(counted), Passed::now(guest)?.since(before_it));
    let executions: Vec<&Read> = lines.iter().filter(|read| read.is_execution()).collect();
    let (mut pids, mut ids) = (HashMap::<u64, u64>::new(), HashSet::new());
    let mut wrong = Vec::new();
    for read in &executions {
        let process = &read.line["process"];
        *pids.entry(process["pid"].as_u64().unwrap_or_default()).or_default() += 1;
        ids.insert(process["execId"].to_string());
        if (&process["exe"], &process["args"]) != (&json!("/srv/tiny"), &json!(["/srv/tiny"]))
            || process["parent"]["exe"] != "/probe"
        {
            wrong.push(&read.line);
        }
    }
    let again = pids.values().filter(|&&times| times > 1).count();
    let (told, done) = (executions.len() as u64, many + 7 * few);
    println!("# numbers again: {told} of {done} executions, {} numbers, {again} of them more than once, {counted:?}", pids.len());
    let is_whole = passed.executions == told && told + counted.missed + counted.processes_lost >= done && told <= done;
    let of_each = arena.quiet.iter().all(|(id, _)| executions.iter().filter(|read| read.is_of(id)).count() as u64 <= few);
    Ok(if wrong.is_empty() && again > 0 && ids.len() == executions.len() && is_whole && of_each {
        Ok(())
    } else {
        Err(format!("{} different executions of {told}, {again} numbers again, wrong: {wrong:#?}", ids.len()))
    })
}

/// Paths, a program, a directory, a name and arguments of bytes that are no text.
fn no_text(guest: &Guest, root: &Path, arena: &mut Arena) -> Outcome {
    let directory = root.join("data/odd").join(OsStr::from_bytes(DIRECTORY));
    guest::make_directory(&directory)?;
    guest::write(&directory.join(OsStr::from_bytes(FILE)), b"x")?;
    guest::copy(&guest.probe, &directory.join(OsStr::from_bytes(PROGRAM)))?;
    let Some(&runtime) = guest.runtimes.first() else { return Ok(Err("no runtime".to_owned())) };
    let counted = Counted::now()?;
    let script = "cd /data/odd/d*; ./p* read /data/odd/d*/f*; exit 0";
    let outcome = runtime.run(guest, &bundle("no-text", root, &["/bin/sh", "-c", script]))?;
    let lines = read(&mut arena.reader)?;
    let counted = Counted::now()?.since(counted);
    let text = |parts: &[&[u8]]| json!(String::from_utf8_lossy(&parts.concat()));
    let inside = |name: &[u8]| text(&[b"/data/odd/", DIRECTORY, b"/", name]);
    let process = [
        ("/process/exe", inside(PROGRAM)),
        ("/process/comm", text(&[PROGRAM])),
        ("/process/cwd", text(&[b"/data/odd/", DIRECTORY])),
        ("/process/args", json!([text(&[b"./", PROGRAM]), "read", inside(FILE)])),
    ];
    let differences = |line: &Value| {
        let differs = |(pointer, value): &&(&str, Value)| line.pointer(pointer) != Some(value);
        process.iter().filter(differs).map(|(pointer, _)| *pointer).collect::<Vec<_>>()
    };
    let of = |is_it: &dyn Fn(&Read) -> bool| lines.iter().filter(|read| read.is_of("no-text") && is_it(read)).collect::<Vec<_>>();
    let alerts = of(&|read| read.is_alert() && read.line["object"] == inside(FILE));
    let executions = of(&|read| read.is_execution() && read.line["process"]["exe"] == inside(PROGRAM));
    let accesses = of(&|read| read.is_access() && read.line["object"] == inside(FILE) && read.line["errno"] == "EACCES");
    let told = [&alerts, &executions, &accesses];
    let is_right = told.iter().all(|reads| matches!(reads[..], [read] if differences(&read.line).is_empty()));
    let lost = counted.alerts_lost + counted.processes_lost + counted.accesses_lost;
    Ok(if is_right && lost == 0 { Ok(()) } else { Err(format!("{outcome:?}, {lost} lost: {lines:#?}")) })
}

/// A command line that is longer than what is told of one.
fn long_arguments(guest: &Guest, root: &Path, arena: &mut Arena) -> Outcome {
    let Some(&runtime) = guest.runtimes.first() else { return Ok(Err("no runtime".to_owned())) };
    let long = "\u{e9}".repeat(32 << 10);
    runtime.run(guest, &bundle("long", root, &["/srv/tiny", &long, "last"]))?;
    let lines = read(&mut arena.reader)?;
    let told: Vec<&Value> =
        lines.iter().filter(|read| read.is_execution() && read.is_of("long")).map(|read| &read.line["process"]).collect();
    let is_cut = |process: &Value| {
        let words: Vec<&str> = process["args"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        // The cut may be within a character, which is then told as one that is none.
        let begins = |word: &str| long.starts_with(word.trim_end_matches('\u{fffd}')) && word.len() > ARGUMENTS / 2;
        process["argsCut"] == true && matches!(words[..], ["/srv/tiny", word] if begins(word) && word.len() <= ARGUMENTS)
    };
    Ok(match told[..] {
        [process] if is_cut(process) => Ok(()),
        _ => Err(format!("{told:#?}")),
    })
}

/// Somebody sets the clock while a container floods, on or back.
fn clock_is_set(guest: &Guest, arena: &mut Arena, is_on: bool) -> Outcome {
    let set = |forward: bool| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let to = if forward { now + STEP } else { now - STEP };
        process::must(Command::new("date").arg("-s").arg(format!("@{}", to.as_secs())), b"", COMMAND_LIMIT).map(drop)
    };
    let (counted, before) = (Counted::now()?, Passed::now(guest)?);
    arena.begin(&order(("open", "/srv/secret"), 2_000, 500), &order(("open", "/srv/secret"), 20, 25_000))?;
    std::thread::sleep(Duration::from_millis(200));
    set(is_on)?;
    let done = arena.end();
    // By then the agent has looked at the clock, with the first event after a second.
    std::thread::sleep(Duration::from_millis(1_500));
    let lines = read_until(&mut arena.reader, |lines| Passed::is_read(guest, before, lines))?;
    let since = Instant::now();
    arena.begin(&order(("open", "/srv/secret"), 1, 0), &order(("open", "/srv/secret"), 1, 0))?;
    arena.end()?;
    let last = read(&mut arena.reader)?;
    let (took, now) = (since.elapsed(), SystemTime::now());
    set(!is_on)?;
    done?;
    let (counted, passed) = (Counted::now()?.since(counted), Passed::now(guest)?.since(before));
    let far = |read: &Read| {
        let raised = read.line["time"].as_str().and_then(|time| humantime::parse_rfc3339(time).ok());
        raised.is_none_or(|raised| now.duration_since(raised).unwrap_or_else(|error| error.duration()) > NEAR)
    };
    let number = |lines: &[Read]| lines.iter().filter(|read| read.is_alert()).count() as u64;
    let done = 2_000 + 7 * 20 + 8;
    let unread: u64 = lines.iter().map(|read| read.lost("alert")).sum();
    let far = last.iter().filter(|read| read.is_alert() && far(read)).count();
    let told = number(&lines) + number(&last);
    let (disordered, undated) = disorder(lines.iter().chain(&last));
    println!(
        "# clock is set {}: {told} alerts of {done}, {unread} unread, {disordered} out of order, {undated} without a time, {far} of the last {} at another time, read after {took:.1?}",
        if is_on { "on" } else { "back" },
        number(&last)
    );
    let is_whole = [counted.blocked, counted.alerts, passed.alerts, told + unread] == [done; 4] && counted.alerts_lost == 0;
    let is_in_order = disordered + undated == 0 && took < STALL;
    Ok(if is_whole && is_in_order && far == 0 && number(&last) == 8 {
        Ok(())
    } else {
        Err(format!("{counted:?}, {passed:?}, {last:#?}"))
    })
}

/// How many alerts come after one of the same container and processor with a greater number, and how many have no valid time.
fn disorder<'a>(lines: impl Iterator<Item = &'a Read>) -> (usize, usize) {
    let (mut numbers, mut disordered, mut undated) = (HashMap::<(String, u64), u64>::new(), 0, 0);
    for Read { line, .. } in lines.filter(|read| read.is_alert()) {
        let of = (line["container"]["id"].to_string(), line["cpu"].as_u64().unwrap_or(u64::MAX));
        let number = line["sequence"].as_u64().unwrap_or_default();
        disordered += usize::from(numbers.insert(of, number).is_some_and(|before| before >= number));
        undated += usize::from(line["time"].as_str().is_none_or(|time| humantime::parse_rfc3339(time).is_err()));
    }
    (disordered, undated)
}

/// The agent goes and another comes while a container floods: each alert is told by one of them, or its number is missing.
fn restarted(guest: &Guest, arena: &mut Arena, agent: &mut Dialogue, signal: Signal) -> Outcome {
    let many = if guest.ci { 1_200 } else { 12_000 };
    let counted = Counted::now()?;
    arena.begin(&order(("open", "/srv/secret"), many, 3_000), &order(("open", "/srv/secret"), 50, 80_000))?;
    std::thread::sleep(Duration::from_millis(500));
    agent.signal(signal);
    agent.close(COMMAND_LIMIT);
    let mut lines = read_to_the_end(&mut arena.reader)?;
    let of_first = lines.len();
    *agent = Dialogue::start(guest.command().arg("agent"))?;
    let is_ready = ready(guest, agent)?;
    arena.reader = Dialogue::start(guest.command().args(["events", "--class", "all"]))?;
    arena.end()?;
    // All that this agent has was raised since it came, or waited for it.
    lines.extend(read_until(&mut arena.reader, |lines| Passed::is_read(guest, Passed::default(), lines))?);
    let counted = Counted::now()?.since(counted);
    let mut numbers: Vec<(u64, u64)> = lines
        .iter()
        .filter(|read| read.is_alert())
        .filter_map(|read| Some((read.line["cpu"].as_u64()?, read.line["sequence"].as_u64()?)))
        .collect();
    let told = numbers.len() as u64;
    numbers.sort_unstable();
    numbers.dedup();
    let twice = told - numbers.len() as u64;
    let unread: u64 = lines.iter().map(|read| read.lost("alert")).sum();
    let gaps: u64 = numbers.windows(2).filter(|two| two[0].0 == two[1].0).map(|two| two[1].1 - two[0].1 - 1).sum();
    let missing = counted.alerts - told;
    println!(
        "# agent restarted by {signal:?}: {} alerts raised, {told} read ({of_first} lines of the first agent), {missing} missing, {gaps} by their numbers, {unread} of them told to be unread, {} lost by the kernel",
        counted.alerts, counted.alerts_lost
    );
    let is_exact = twice == 0 && missing == gaps && counted.alerts == many + 7 * 50 && counted.alerts_lost == 0;
    Ok(match is_ready {
        Ok(()) if is_exact => Ok(()),
        Ok(()) => Err(format!("{twice} were told twice; {missing} are missing, {gaps} by their numbers: {counted:?}")),
        Err(why) => Err(why),
    })
}
