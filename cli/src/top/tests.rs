use std::time::{Duration, Instant};

use portcullis_agent::alerts::Verdict;
use portcullis_agent::control::{AgentStatus, EventClass, SinkStatus, Tree, TreeProcess};
use portcullis_ebpf::abi::Stats;
use serde_json::json;

use super::model::{Container, Event, Model, Sample};
use super::sources;
use super::text;
use super::view::{Pane, View};

pub(super) fn event(text: &str) -> Event {
    Event { verdict: Some(Verdict::Block), pid: 4711, container: "4771ac3e9074".to_owned(), text: text.to_owned() }
}

/// An agent that looks after one container, in which a shell runs `cat`.
pub(super) fn sample() -> Sample {
    let mut agent = AgentStatus {
        version: "0.1.0".to_owned(),
        pid: 312,
        started_at: 0,
        policies: Default::default(),
        containers: Default::default(),
        nri: Default::default(),
        alerts: Default::default(),
        metrics_trouble: None,
        monitor: Default::default(),
        logs: Default::default(),
        sinks: vec![SinkStatus::default()],
        accesses: Default::default(),
        visibility: Default::default(),
    };
    (agent.policies.count, agent.policies.generation, agent.containers.known) = (4, 7, 1);
    let process = |pid: u32, parent: u32, exe: &str| TreeProcess {
        pid,
        ns_pid: Some(pid - 4709),
        parent,
        started: "2026-01-01T00:00:00Z".to_owned(),
        exe: Some(exe.to_owned()),
        args: Some(vec!["x".to_owned(), "/etc/shadow".to_owned()]),
        args_cut: false,
    };
    let processes = vec![process(4710, 1, "/bin/sh"), process(4711, 4710, "/bin/cat")];
    let container = Container {
        id: "4771ac3e9074".to_owned(),
        name: "shop/web".to_owned(),
        state: "armed".to_owned(),
        is_well: true,
        coverage: vec![("process", "2 block".to_owned()), ("network", "-".to_owned())],
        tree: Some(Ok(Tree { id: "4771ac3e9074".to_owned(), name: "web".to_owned(), processes, left_out: 0 })),
    };
    let kernel = Ok(Stats::default());
    Sample { at: Instant::now(), agent, kernel, containers: vec![container], left_out: 0 }
}

fn model() -> Model {
    let mut model = Model::default();
    let first = sample();
    let mut second = first.clone();
    second.at += Duration::from_secs(1);
    second.agent.alerts.alerts = 3;
    second.kernel = Ok(Stats { blocked: 2, audited: 1, ..Stats::default() });
    model.sampled(first);
    model.sampled(second);
    for verdict in [Verdict::Block, Verdict::Block, Verdict::Audit] {
        let event = Event { verdict: Some(verdict), ..event("block shop/web: read /etc/shadow by /bin/cat[4711]") };
        model.count(&event);
        model.events.push(event);
    }
    model
}

fn frame(model: &Model, view: &mut View) -> String {
    text(model, view, 110, 20).join("\n")
}

#[test]
fn a_frame_has_all_of_it() {
    let expected = "\
portcullis top  agent 0.1.0 (process 312)  4 policies (generation 7)  1 containers known, 1 shown
per second: 2.0 denied  1.0 audited  3.0 alerts  0.0 other events
lost 0: 0 alerts in the kernel, 0 by readers, 0 by sinks, 0 of processes, 0 missed, 0 here
 containers and processes (d denied, a audited) ──────────────────────────────────────────────────────────────
shop/web  4771ac3e9074  armed  2 denied  1 audited
  process: 2 block  network: -
              4710 (1)  2026-01-01T00:00:00Z  /bin/sh /etc/shadow
    2d    1a  └─ 4711 (2)  2026-01-01T00:00:00Z  /bin/cat /etc/shadow";
    let frame = frame(&model(), &mut View::default());
    let shown: Vec<&str> = frame.lines().collect();
    let expected: Vec<&str> = expected.lines().collect();
    assert_eq!(shown[..expected.len()], expected, "{frame}");
    assert_eq!(frame.matches("block shop/web: read /etc/shadow by /bin/cat[4711]").count(), 3, "{frame}");
    assert!(shown.last().unwrap().contains("q quit  / filter  space pause"), "{frame}");
}

#[test]
fn what_was_lost_is_shown_wherever_it_was() {
    let mut model = model();
    let mut sample = model.sample.clone().unwrap();
    sample.kernel = Ok(Stats { lost: 11, ..Stats::default() });
    (sample.agent.alerts.lost, sample.agent.logs.lost, sample.agent.sinks[0].lost) = (1, 12, 14);
    (sample.agent.monitor.lost, sample.agent.monitor.missed) = (15, 16);
    model.sampled(sample.clone());
    model.missed(EventClass::Alert, 17);
    let shown = frame(&model, &mut View::default());
    let losses = "lost 86: 11 alerts in the kernel, 13 by readers, 14 by sinks, 15 of processes, 16 missed, 17 here";
    assert!(shown.contains(losses), "{shown}");
    assert!(shown.contains("17 alerts are missing here"), "{shown}");
    sample.kernel = Err("not loaded".to_owned());
    model.sampled(sample);
    model.trouble = Some("the agent does not answer".to_owned());
    let shown = frame(&model, &mut View::default());
    assert!(shown.contains("lost 75: 13 by readers") && shown.contains("in the kernel nobody knows (not load"), "{shown}");
    assert!(shown.contains("OLD: the agent does not answer"), "{shown}");
}

#[test]
fn a_paused_view_says_so_and_what_is_typed_is_seen() {
    let mut model = model();
    model.events.pause();
    model.events.push(event("later"));
    let mut view = View { filter: "verdict=block".to_owned(), ..View::default() };
    let shown = frame(&model, &mut view);
    assert!(shown.contains("events of verdict=block: PAUSED, 1 came since") && !shown.contains("later"), "{shown}");
    view.typing = Some("pod=".to_owned());
    assert!(frame(&model, &mut view).contains("filter: pod=▏"));
    (view.typing, view.refused) = (None, Some("no such pod".to_owned()));
    assert!(frame(&model, &mut view).contains("not filtered so: no such pod"));
}

#[test]
fn scrolling_ends_where_there_is_no_more() {
    let mut model = model();
    (0..100).for_each(|number| model.events.push(event(&format!("event {number}."))));
    let mut view = View { focus: Pane::Events, above: 1000, below: 1000, ..View::default() };
    let shown = frame(&model, &mut view);
    assert_eq!(view.above, 0, "the tree fits");
    assert!(view.below < 103 && shown.contains("block shop/web") && !shown.contains("event 99."), "{shown}");
    view.below = 0;
    assert!(frame(&model, &mut view).contains("event 99."));
}

#[test]
fn a_frame_without_anything_and_one_without_room_are_drawn() {
    assert!(frame(&Model::default(), &mut View::default()).contains("asking the agent"));
    let mut refused = Model::default();
    refused.trouble = Some("no agent".to_owned());
    assert!(frame(&refused, &mut View::default()).contains("no agent"));
    for (width, height) in [(1, 1), (20, 3), (5, 40)] {
        assert_eq!(text(&model(), &mut View::default(), width, height).len(), usize::from(height));
    }
}

#[test]
fn hostile_names_reach_no_cell() {
    const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\n\u{9b}\u{202e}x";
    let hostile = HOSTILE.to_owned();
    let mut model = model();
    let mut sample = sample();
    sample.agent.version = hostile.clone();
    sample.agent.alerts.trouble = Some(hostile.clone());
    sample.kernel = Err(hostile.clone());
    let container = &mut sample.containers[0];
    (container.name, container.state) = (hostile.clone(), hostile.clone());
    if let Some(Ok(tree)) = &mut container.tree {
        (tree.processes[0].exe, tree.processes[1].args) = (Some(hostile.clone()), Some(vec![hostile.clone(), hostile.clone()]));
    }
    sample.containers.push(Container { tree: Some(Err(hostile.clone())), ..sample.containers[0].clone() });
    model.sampled(sample);
    model.trouble = Some(hostile.clone());
    let alert = json!({
        "verdict": "block", "operation": HOSTILE, "object": HOSTILE, "policy": HOSTILE, "time": HOSTILE,
        "container": {"id": "4771ac3e9074", "name": HOSTILE, "namespace": HOSTILE},
        "process": {"pid": 4711, "comm": HOSTILE, "exe": HOSTILE},
    });
    model.events.push(sources::event(&alert));
    let mut view = View { filter: hostile.clone(), refused: Some(hostile.clone()), ..View::default() };
    for typing in [None, Some(hostile)] {
        view.typing = typing;
        for line in text(&model, &mut view, 400, 30) {
            assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
        }
    }
    let shown = text(&model, &mut view, 400, 30).join("\n");
    assert!(shown.contains(r"\u{1b}[2J\u{1b}]0;owned\u{7}\r\n\u{9b}\u{202e}x"), "written out: {shown}");
}
