//! Paths, patterns and sources.

use super::context::Context;
use super::fields::{Fields, text};
use crate::glob::Glob;
use crate::meaning::Location;
use crate::path::{self, PathKind};
use crate::written::{Limits, Target};
use crate::yaml::Node;

/// The path in `node`, normalised.
pub(super) fn path(cx: &Context<'_>, node: &Node, field: &str, kind: PathKind, recursive: bool) -> Option<Vec<u8>> {
    let text = text(cx, node, field)?;
    match path::parse(text, kind) {
        Ok(path) => {
            if path::has_dots(text) {
                let shown = format!("{}{}", String::from_utf8_lossy(&path), if kind == PathKind::Directory { "/" } else { "" });
                cx.warn(node.at, field, "the path has `.` or `..` in it", format!("it is taken as `{shown}`; write that"));
            }
            Some(path)
        }
        Err(problem) => {
            cx.error(node.at, field, problem.to_string(), problem.help(text, kind, recursive));
            None
        }
    }
}

/// `path` and `execname` of `process.matchPaths[]`.
pub(super) fn executable(fields: &Fields<'_>) -> Vec<Target> {
    let cx = fields.cx;
    let mut targets = Vec::new();
    if let Some(node) = fields.get("path") {
        targets.extend(path(cx, node, &fields.field("path"), PathKind::File, false).map(Target::Path));
    }
    if let Some(name) = fields.text("execname") {
        if name.is_empty() || name.contains(['/', '\0']) {
            let help = "write the last component of the executable's path, such as `curl`, or use `path` for a whole path";
            cx.error(fields.at("execname"), &fields.field("execname"), "`execname` is not a file name", help);
        } else if name.contains(['*', '?']) {
            let help = format!("use `matchPatterns` with `pattern: /**/{name}`");
            cx.error(
                fields.at("execname"),
                &fields.field("execname"),
                "`execname` has a glob, and would be taken literally",
                help,
            );
        } else {
            targets.push(Target::ExecName(name.as_bytes().to_vec()));
        }
    }
    match (fields.get("path"), fields.get("execname")) {
        (None, None) => {
            cx.error(fields.node.at, &fields.path, "`path` is missing", "write `path: /…`, or `execname: …`");
        }
        (Some(_), Some(execname)) => cx.warn(
            execname.at,
            &fields.field("execname"),
            "both `path` and `execname` are given",
            "either of them matches; write two rules if that is not meant",
        ),
        _ => {}
    }
    targets
}

/// `path` of `file.matchPaths[]`.
pub(super) fn file(fields: &Fields<'_>) -> Option<Target> {
    let node = fields.require("path", "write `path: /…`")?;
    path(fields.cx, node, &fields.field("path"), PathKind::File, false).map(Target::Path)
}

/// `dir` and `recursive`.
pub(super) fn directory(fields: &Fields<'_>) -> Option<Target> {
    let recursive = fields.flag("recursive").unwrap_or(false);
    let node = fields.require("dir", "write `dir: /…/`")?;
    let dir = path(fields.cx, node, &fields.field("dir"), PathKind::Directory, recursive)?;
    Some(Target::Directory { dir, recursive })
}

/// `pattern`.
pub(super) fn pattern(fields: &Fields<'_>) -> Option<Target> {
    let node = fields.require("pattern", "write `pattern: /…`")?;
    let field = fields.field("pattern");
    let text = text(fields.cx, node, &field)?;
    match Glob::parse(text.as_bytes()) {
        Ok(glob) => Some(Target::Pattern(glob)),
        Err(error) => {
            let sentence = error.to_string();
            let (message, help) = sentence.split_once("; ").unwrap_or((
                &sentence,
                "patterns are AppArmor globs: `*` within a directory, `**` across, `?`, `[abc]`, `{a,b}`, `\\` before a literal",
            ));
            fields.cx.error(node.at, &field, message, help);
            None
        }
    }
}

/// `fromSource` and `ownerOnly`.
pub(super) fn limits(fields: &Fields<'_>) -> Limits {
    let cx = fields.cx;
    let mut sources = Vec::new();
    for (node, field) in fields.list("fromSource") {
        let Some(source) = Fields::open(cx, node, field, &["path"], false) else { continue };
        if let Some(node) = source.require("path", "write `path: /…`: the executable that performs the operation") {
            sources.extend(path(cx, node, &source.field("path"), PathKind::File, false).map(Location::Path));
        }
    }
    warn_of_no_source(fields);
    Limits { sources, owner_only: fields.flag("ownerOnly").unwrap_or(false) }
}

/// `fromSource` of `syscalls`, which takes directories too.
pub(super) fn sources_of_calls(fields: &Fields<'_>) -> Limits {
    let cx = fields.cx;
    let mut sources = Vec::new();
    for (node, field) in fields.list("fromSource") {
        let Some(source) = Fields::open(cx, node, field, &["path", "dir", "recursive"], false) else { continue };
        match (source.get("path"), source.get("dir")) {
            (Some(_), None) => sources.extend(location(&source, "path")),
            (None, Some(node)) => {
                let recursive = source.flag("recursive").unwrap_or(false);
                let dir = path(cx, node, &source.field("dir"), PathKind::Directory, recursive);
                sources.extend(dir.map(|dir| Location::Directory { dir, recursive }));
            }
            (Some(_), Some(node)) => {
                let help = "write `- path: …` and `- dir: …` as two elements of the list";
                cx.error(node.at, &source.field("dir"), "both `path` and `dir` are given", help);
            }
            (None, None) => cx.error(node.at, &source.path, "`path` is missing", "write `path: /…` or `dir: /…/`"),
        }
    }
    warn_of_no_source(fields);
    Limits { sources, owner_only: false }
}

/// `path` of `syscalls`, which is a directory where it ends with a slash, and `recursive`.
pub(super) fn location(fields: &Fields<'_>, name: &str) -> Option<Location> {
    let recursive = fields.flag("recursive").unwrap_or(false);
    let node = fields.get(name)?;
    let field = fields.field(name);
    let found = path(fields.cx, node, &field, PathKind::Either, recursive)?;
    if node.text().is_some_and(|text| text.ends_with('/')) {
        return Some(Location::Directory { dir: found, recursive });
    }
    if recursive {
        let shown = String::from_utf8_lossy(&found);
        let help = format!("it is taken as the directory `{shown}/`; write that, or remove `recursive`");
        fields.cx.warn(node.at, &field, "`recursive` is given with a path that does not end with `/`", help);
        return Some(Location::Directory { dir: found, recursive });
    }
    Some(Location::Path(found))
}

/// A rule that was meant for some sources must not become one for all: an empty list is more likely an accident.
fn warn_of_no_source(fields: &Fields<'_>) {
    if let Some(node) = fields.get("fromSource")
        && matches!(&node.value, crate::yaml::Value::Sequence(items) if items.is_empty())
    {
        fields.cx.warn(
            node.at,
            &fields.field("fromSource"),
            "`fromSource` is empty",
            "the rule holds for every executable; remove the field, or name some",
        );
    }
}
