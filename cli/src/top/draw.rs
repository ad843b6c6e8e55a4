//! One frame: how the agent is, what happens per second, what was lost, the containers with their processes, the newest events,
//! and the filter bar. Names that containers chose go through [`printable`] on their way here, and nowhere else.

use portcullis_agent::alerts::Verdict;
use portcullis_agent::control::AgentStatus;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};

use super::model::{Container, Model, Sample, Verdicts};
use super::view::{Pane, View};
use crate::output::printable;
use crate::tree;

const KEYS: &str = "q quit  / filter  space pause  tab other pane  arrows, page keys scroll";

/// Characters of a container's name that are shown: what is told of it has to fit beside.
const MAX_NAME: usize = 48;

const WELL: Style = Style::new().fg(Color::Green);
const WRONG: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const AUDITED: Style = Style::new().fg(Color::Yellow);
const FAINT: Style = Style::new().add_modifier(Modifier::DIM);

/// Draws all of it. What is scrolled beyond its end comes back to it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, view: &mut View) {
    let parts = Layout::vertical([Constraint::Length(3), Constraint::Fill(3), Constraint::Fill(2), Constraint::Length(1)]);
    let [head, tree, events, bar] = parts.areas(frame.area());
    frame.render_widget(Paragraph::new(head_lines(model)), head);
    draw_tree(frame, tree, model, view);
    draw_events(frame, events, model, view);
    frame.render_widget(Paragraph::new(bar_line(view)), bar);
}

fn head_lines(model: &Model) -> Vec<Line<'static>> {
    let mut title = vec![Span::styled("portcullis top", Style::new().add_modifier(Modifier::BOLD))];
    let Some(sample) = &model.sample else {
        title.push(match &model.trouble {
            Some(trouble) => Span::styled(format!("  {}", printable(trouble)), WRONG),
            None => Span::raw("  asking the agent"),
        });
        return vec![Line::from(title)];
    };
    // What is wrong comes first: the line may be longer than the screen is wide.
    if let Some(trouble) = &model.trouble {
        title.push(Span::styled(format!("  OLD: {}", printable(trouble)), WRONG));
    }
    if sample.left_out > 0 {
        title.push(Span::styled(format!("  {} containers left out", sample.left_out), WRONG));
    }
    let agent = &sample.agent;
    title.push(Span::raw(format!(
        "  agent {} (process {})  {} policies (generation {})  {} containers known, {} shown",
        printable(&agent.version),
        agent.pid,
        agent.policies.count,
        agent.policies.generation,
        agent.containers.known,
        sample.containers.len()
    )));
    vec![Line::from(title), rates(model, sample), losses(model, sample)]
}

fn rates(model: &Model, sample: &Sample) -> Line<'static> {
    let told = match model.rates {
        None => "per second: not known yet".to_owned(),
        Some(rates) => {
            let verdicts =
                rates.verdicts.map_or_else(String::new, |(block, audit)| format!("{block:.1} denied  {audit:.1} audited  "));
            format!("per second: {verdicts}{:.1} alerts  {:.1} other events", rates.alerts, rates.logs)
        }
    };
    let mut spans = vec![Span::raw(told)];
    let troubles = [&sample.agent.alerts.trouble, &sample.agent.monitor.trouble];
    for (what, trouble) in ["alerts are not read", "processes are not told"].into_iter().zip(troubles) {
        if let Some(reason) = trouble {
            spans.push(Span::styled(format!("  {what}: {}", printable(reason)), WRONG));
        }
    }
    Line::from(spans)
}

/// What was lost on any part of the way: all together first, then where.
fn losses(model: &Model, sample: &Sample) -> Line<'static> {
    let AgentStatus { alerts, logs, monitor, sinks, .. } = &sample.agent;
    let in_kernel = sample.kernel.as_ref().map(|counts| counts.lost);
    let counted = [
        (in_kernel.unwrap_or_default(), "alerts in the kernel"),
        (alerts.lost + logs.lost, "by readers"),
        (sinks.iter().map(|sink| sink.lost).sum(), "by sinks"),
        (monitor.lost, "of processes"),
        (monitor.missed, "missed"),
        (model.missed, "here"),
    ];
    let style = |count: u64| if count > 0 { WRONG } else { WELL };
    let all: u64 = counted.iter().map(|(count, _)| count).sum();
    let mut spans = vec![Span::styled(format!("lost {all}: "), style(all))];
    for (index, (count, place)) in counted.into_iter().skip(usize::from(in_kernel.is_err())).enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        spans.extend([Span::raw(comma), Span::styled(format!("{count} {place}"), style(count))]);
    }
    if let Err(reason) = in_kernel {
        spans.push(Span::styled(format!(", in the kernel nobody knows ({})", printable(reason)), AUDITED));
    }
    Line::from(spans)
}

fn draw_tree(frame: &mut Frame<'_>, area: Rect, model: &Model, view: &mut View) {
    let block = pane("containers and processes (d denied, a audited)", view.focus == Pane::Tree);
    let height = usize::from(block.inner(area).height);
    let lines = tree_lines(model);
    view.above = view.above.min(lines.len().saturating_sub(height));
    let shown: Vec<Line<'_>> = lines.into_iter().skip(view.above).take(height).collect();
    frame.render_widget(Paragraph::new(shown).block(block), area);
}

fn tree_lines(model: &Model) -> Vec<Line<'static>> {
    let Some(sample) = &model.sample else { return Vec::new() };
    if sample.containers.is_empty() {
        return vec![Line::from("no container is known")];
    }
    sample.containers.iter().flat_map(|container| container_lines(model, container)).collect()
}

fn container_lines(model: &Model, container: &Container) -> Vec<Line<'static>> {
    let id: String = container.id.chars().take(12).collect();
    let whole = printable(&container.name);
    let mut name: String = whole.chars().take(MAX_NAME).collect();
    if name.len() < whole.len() {
        name.push('…');
    }
    let mut head = vec![
        Span::styled(format!("{name}  {}", printable(&id)), Style::new().add_modifier(Modifier::BOLD)),
        Span::styled(format!("  {}", printable(&container.state)), if container.is_well { WELL } else { WRONG }),
    ];
    head.extend(verdicts(model.of_container(&container.id)));
    let mut lines = vec![Line::from(head)];
    if !container.coverage.is_empty() {
        let classes: Vec<String> = container.coverage.iter().map(|(class, covered)| format!("{class}: {covered}")).collect();
        lines.push(Line::styled(format!("  {}", classes.join("  ")), FAINT));
    }
    match &container.tree {
        None => {}
        Some(Err(reason)) => lines.push(Line::styled(format!("  {}", printable(reason)), AUDITED)),
        Some(Ok(tree)) => lines.extend(tree::rows(tree).into_iter().map(|row| {
            let Verdicts { block, audit } = row.pid.map(|pid| model.of_process(pid)).unwrap_or_default();
            let told = |count: u64, letter: char| if count > 0 { format!("{count}{letter}") } else { String::new() };
            Line::from(vec![
                Span::styled(format!("{:>6}", told(block, 'd')), WRONG),
                Span::styled(format!("{:>6}", told(audit, 'a')), AUDITED),
                Span::raw(format!("  {}", row.text)),
            ])
        })),
    }
    lines
}

fn verdicts(Verdicts { block, audit }: Verdicts) -> Vec<Span<'static>> {
    let told = [(block, "denied", WRONG), (audit, "audited", AUDITED)];
    let told = told.into_iter().filter(|(count, ..)| *count > 0);
    told.map(|(count, what, style)| Span::styled(format!("  {count} {what}"), style)).collect()
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, model: &Model, view: &mut View) {
    let events = &model.events;
    let mut title = if view.filter.is_empty() { "events".to_owned() } else { format!("events of {}", printable(&view.filter)) };
    if events.is_paused() {
        title += &format!(": PAUSED, {} came since", events.waiting());
        if events.skipped > 0 {
            title += &format!(", {} of them too many", events.skipped);
        }
    }
    let block = pane(&title, view.focus == Pane::Events);
    let height = usize::from(block.inner(area).height);
    let shown = events.shown();
    view.below = view.below.min(shown.len().saturating_sub(height));
    let first = shown.len().saturating_sub(height + view.below);
    let line = |event: &super::model::Event| match event.verdict {
        Some(Verdict::Block) => Line::styled(event.text.clone(), WRONG),
        Some(Verdict::Audit) => Line::styled(event.text.clone(), AUDITED),
        Some(Verdict::Passed | Verdict::Denied) | None => Line::raw(event.text.clone()),
    };
    let lines: Vec<Line<'_>> = shown.iter().skip(first).take(height).map(line).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn pane(title: &str, has_focus: bool) -> Block<'static> {
    let style = if has_focus { Style::new().add_modifier(Modifier::BOLD) } else { FAINT };
    Block::new().borders(Borders::TOP).border_style(style).title(format!(" {title} "))
}

fn bar_line(view: &View) -> Line<'static> {
    if let Some(text) = &view.typing {
        return Line::from(vec![Span::raw("filter: "), Span::raw(printable(text)), Span::raw("▏")]);
    }
    match &view.refused {
        Some(reason) => Line::styled(format!("not filtered so: {}", printable(reason)), WRONG),
        None => Line::styled(KEYS, FAINT),
    }
}
