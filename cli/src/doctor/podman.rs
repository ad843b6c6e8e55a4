//! Which of our hooks Podman runs, as its configuration says. It tells nobody: a directory that is not there is passed over, and then
//! containers start without us.
//!
//! `containers.conf(5)`: `hooks_dir` under `[engine]`, of which the last file that has it counts; one with `{append = true}` adds.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use portcullis_policy::Backend;
use serde::Deserialize;

use super::Finding;

/// The file of the hook that arms.
const CREATE_RUNTIME: &str = "portcullis-createRuntime.json";
/// The file of Podman's hook `precreate`.
const PRECREATE: &str = "portcullis-precreate.json";
/// Where contrib/podman-precreate has it: a directory that only Podman reads.
const PODMAN_HOOKS: &str = "/etc/portcullis/podman-hooks.d";
/// What Podman reads if nothing says otherwise.
const DEFAULT_HOOKS: &str = "/usr/share/containers/oci/hooks.d";
/// Directories that CRI-O reads, too, or that may be told to.
const SHARED_HOOKS: [&str; 2] = [DEFAULT_HOOKS, "/etc/containers/oci/hooks.d"];
/// Where Podman is.
const PROGRAMS: [&str; 3] = ["/usr/bin/podman", "/usr/local/bin/podman", "/bin/podman"];
/// What it reads, in this order, and then the files of [`DROP_INS`] by name.
const CONFIGURATIONS: [&str; 2] = ["/usr/share/containers/containers.conf", "/etc/containers/containers.conf"];
const DROP_INS: &str = "/etc/containers/containers.conf.d";
/// Largest file that is read, in bytes, and most files of a directory.
const MAX_BYTES: u64 = 1 << 20;
const MAX_FILES: usize = 1000;

/// What there is to say, where `root` is the host's root directory.
pub(super) fn findings(root: &Path, backend: Backend) -> Vec<Finding> {
    let host = Host { root };
    let misplaced = SHARED_HOOKS.into_iter().filter(|directory| host.has(directory, PRECREATE)).map(|directory| {
        note(
            format!("CRI-O does not start with {directory}/{PRECREATE}, a stage that it does not know"),
            format!("mv {directory}/{PRECREATE} {PODMAN_HOOKS}/"),
        )
    });
    let mut findings: Vec<Finding> = misplaced.collect();
    if !PROGRAMS.into_iter().any(|program| host.at(program).exists()) {
        return findings;
    }
    let directories = match host.hooks_dir() {
        Ok(directories) => directories,
        Err(why) => {
            findings.push(Finding { fatal: false, what: format!("which hooks Podman runs cannot be told: {why}"), fix: None });
            return findings;
        }
    };
    // The usual ones may be named and not be there.
    let is_missing = |directory: &&String| !SHARED_HOOKS.contains(&directory.as_str()) && !host.at(directory).is_dir();
    for directory in directories.iter().filter(is_missing) {
        findings.push(note(
            format!("Podman passes over {directory}, which its hooks_dir names and which is not there: containers start without its hooks"),
            format!("mkdir -p {directory}, or correct hooks_dir in containers.conf"),
        ));
    }
    let (file, contrib) = match backend {
        Backend::Bpf => (CREATE_RUNTIME, "contrib/hooks.d"),
        Backend::AppArmor => (PRECREATE, "contrib/podman-precreate"),
    };
    let hooked = directories.iter().find(|directory| host.has(directory, file));
    match (hooked, backend) {
        (Some(directory), _) => {
            if let Err(why) = host.program_of(directory, file) {
                findings.push(note(
                    format!("Podman cannot run {directory}/{file}, and some versions then start containers without it: {why}"),
                    "install the program before the file".to_owned(),
                ));
            }
            if backend == Backend::AppArmor {
                findings.push(note(
                    format!(
                        "Partial: Podman's precreate hook ({directory}/{PRECREATE}) gives containers their label, but not what `podman exec` executes in them"
                    ),
                    "have Podman run containers by portcullis-runtime: contrib/runtime".to_owned(),
                ));
            }
        }
        (None, Backend::Bpf) => {
            let elsewhere = SHARED_HOOKS.into_iter().find(|directory| host.has(directory, file));
            findings.push(note(
                format!(
                    "`podman run` is protected with --hooks-dir alone: its hooks_dir ({}) has no {file}",
                    directories.join(", ")
                ),
                match elsewhere {
                    Some(directory) => format!("hooks_dir = [\"{directory}\"] under [engine] in /etc/containers/containers.conf"),
                    None => format!("{contrib}, and hooks_dir under [engine] in /etc/containers/containers.conf"),
                },
            ));
        }
        (None, Backend::AppArmor) if host.has(PODMAN_HOOKS, PRECREATE) => {
            findings.push(note(
                format!("Podman does not run {PODMAN_HOOKS}/{PRECREATE}: its hooks_dir is {}", directories.join(", ")),
                format!("{contrib}/containers.conf"),
            ));
        }
        (None, Backend::AppArmor) => {}
    }
    findings
}

fn note(what: String, fix: String) -> Finding {
    Finding { fatal: false, what, fix: Some(fix) }
}

#[derive(Deserialize)]
struct Configuration {
    engine: Option<Engine>,
}

#[derive(Deserialize)]
struct Engine {
    hooks_dir: Option<Vec<Item>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Directory(String),
    Attributes { append: Option<bool> },
}

#[derive(Deserialize)]
struct HookFile {
    hook: Hook,
}

#[derive(Deserialize)]
struct Hook {
    path: PathBuf,
}

struct Host<'a> {
    root: &'a Path,
}

impl Host<'_> {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn has(&self, directory: &str, file: &str) -> bool {
        self.at(directory).join(file).exists()
    }

    /// The directories that Podman reads hooks from.
    fn hooks_dir(&self) -> Result<Vec<String>, String> {
        let mut files: Vec<PathBuf> = CONFIGURATIONS.into_iter().map(|path| self.at(path)).collect();
        if let Ok(entries) = std::fs::read_dir(self.at(DROP_INS)) {
            let paths = entries.take(MAX_FILES).filter_map(|entry| entry.ok().map(|entry| entry.path()));
            let mut drop_ins: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "conf")).collect();
            drop_ins.sort();
            files.append(&mut drop_ins);
        }
        let mut directories = vec![DEFAULT_HOOKS.to_owned()];
        for file in files {
            let Some(text) = read(&file)? else { continue };
            let configuration: Configuration =
                toml::from_str(&text).map_err(|error| format!("{}: {}", file.display(), error.to_string().trim_end()))?;
            let Some(items) = configuration.engine.and_then(|engine| engine.hooks_dir) else { continue };
            if !items.iter().any(|item| matches!(item, Item::Attributes { append: Some(true) })) {
                directories.clear();
            }
            directories.extend(items.into_iter().filter_map(|item| match item {
                Item::Directory(directory) => Some(directory),
                Item::Attributes { .. } => None,
            }));
        }
        Ok(directories)
    }

    /// The program of a hook is there.
    fn program_of(&self, directory: &str, file: &str) -> Result<(), String> {
        let text = read(&self.at(directory).join(file))?.ok_or("it is gone")?;
        let parsed: HookFile = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let path = parsed.hook.path.display().to_string();
        if self.at(&path).is_file() { Ok(()) } else { Err(format!("{path} is not there")) }
    }
}

/// A file's text; nothing if there is none.
fn read(path: &Path) -> Result<Option<String>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("{} has more than {MAX_BYTES} bytes", path.display()));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETC: &str = "etc/containers/oci/hooks.d";

    struct Place(tempfile::TempDir);

    impl Place {
        fn with(files: &[(&str, &str)]) -> Place {
            let place = Place(tempfile::tempdir().unwrap());
            place.put("usr/bin/podman", "");
            files.iter().for_each(|(path, text)| place.put(path, text));
            place
        }

        fn put(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn says(&self, backend: Backend) -> Vec<String> {
            findings(self.0.path(), backend).into_iter().map(|finding| finding.what).collect()
        }
    }

    fn hook(directory: &str, file: &str) -> String {
        format!("{directory}/{file}")
    }

    const HOOK: &str = r#"{"version": "1.0.0", "hook": {"path": "/usr/libexec/portcullis/portcullis-hook"}}"#;
    const PROGRAM: &str = "usr/libexec/portcullis/portcullis-hook";

    #[test]
    fn an_installation_by_the_readme_is_well() {
        let conf = "[engine]\nhooks_dir = [\"/etc/containers/oci/hooks.d\"]\n";
        let file = hook(ETC, CREATE_RUNTIME);
        let place = Place::with(&[("etc/containers/containers.conf", conf), (&file, HOOK), (PROGRAM, "")]);
        assert_eq!(place.says(Backend::Bpf), [""; 0]);
        let packaged = hook("usr/share/containers/oci/hooks.d", CREATE_RUNTIME);
        assert_eq!(Place::with(&[(&packaged, HOOK), (PROGRAM, "")]).says(Backend::Bpf), [""; 0]);
        let nobody = tempfile::tempdir().unwrap();
        assert!(findings(nobody.path(), Backend::Bpf).is_empty(), "there is no Podman");
    }

    #[test]
    fn hooks_that_podman_does_not_read_are_said() {
        let file = hook(ETC, CREATE_RUNTIME);
        let place = Place::with(&[(&file, HOOK), (PROGRAM, "")]);
        let said = findings(place.0.path(), Backend::Bpf);
        assert!(said[0].what.starts_with("`podman run` is protected with --hooks-dir alone"), "{}", said[0].what);
        let fix = "hooks_dir = [\"/etc/containers/oci/hooks.d\"] under [engine] in /etc/containers/containers.conf";
        assert_eq!(said[0].fix.as_deref(), Some(fix));
        place.put("etc/containers/containers.conf", "[engine]\nhooks_dir = [\"/etc/containers/oci/hook.d\"]\n");
        let said = place.says(Backend::Bpf);
        assert!(said[0].starts_with("Podman passes over /etc/containers/oci/hook.d,"), "{said:?}");
        assert!(said[1].contains("(/etc/containers/oci/hook.d) has no "), "{said:?}");
    }

    #[test]
    fn the_last_file_counts_or_adds() {
        let file = hook(ETC, CREATE_RUNTIME);
        let place = Place::with(&[(&file, HOOK), (PROGRAM, "")]);
        let conf = "[engine]\nhooks_dir = [\"/etc/containers/oci/hooks.d\"]\n";
        place.put("etc/containers/containers.conf.d/10-a.conf", conf);
        place.put("etc/containers/containers.conf.d/20-b.conf", "[containers]\nlog_driver = \"k8s-file\"\n");
        place.put("etc/containers/containers.conf.d/not-read", "[engine");
        assert_eq!(place.says(Backend::Bpf), [""; 0]);
        std::fs::create_dir_all(place.0.path().join("srv/hooks")).unwrap();
        place.put("etc/containers/containers.conf.d/30-c.conf", "[engine]\nhooks_dir = [\"/srv/hooks\", {append = true}]\n");
        assert_eq!(place.says(Backend::Bpf), [""; 0]);
        place.put("etc/containers/containers.conf.d/30-c.conf", "[engine]\nhooks_dir = [\"/srv/hooks\"]\n");
        assert_eq!(place.says(Backend::Bpf).len(), 1);
        place.put("etc/containers/containers.conf.d/40-d.conf", "[engine\n");
        let said = place.says(Backend::Bpf);
        assert!(said[0].starts_with("which hooks Podman runs cannot be told: ") && said[0].contains("40-d.conf"), "{said:?}");
    }

    #[test]
    fn a_hook_without_its_program_is_said() {
        let packaged = hook("usr/share/containers/oci/hooks.d", CREATE_RUNTIME);
        let said = Place::with(&[(&packaged, HOOK)]).says(Backend::Bpf);
        assert!(said[0].ends_with("/usr/libexec/portcullis/portcullis-hook is not there"), "{said:?}");
        let said = Place::with(&[(&packaged, "{}")]).says(Backend::Bpf);
        assert!(said[0].contains("missing field `hook`"), "{said:?}");
        let large = " ".repeat(usize::try_from(MAX_BYTES).unwrap() + 1);
        assert!(Place::with(&[(&packaged, &large)]).says(Backend::Bpf)[0].contains("more than 1048576 bytes"));
    }

    #[test]
    fn precreate_is_partial_or_not_read_or_misplaced() {
        let file = hook("etc/portcullis/podman-hooks.d", PRECREATE);
        let place = Place::with(&[(&file, HOOK), (PROGRAM, "")]);
        let said = place.says(Backend::AppArmor);
        assert!(said.len() == 1 && said[0].starts_with("Podman does not run /etc/portcullis/podman-hooks.d/"), "{said:?}");
        let conf = include_str!("../../../contrib/podman-precreate/containers.conf");
        place.put("etc/containers/containers.conf.d/portcullis-precreate.conf", conf);
        let said = place.says(Backend::AppArmor);
        assert!(said.len() == 1 && said[0].starts_with("Partial: Podman's precreate hook"), "{said:?}");
        place.put(&hook("usr/share/containers/oci/hooks.d", PRECREATE), HOOK);
        assert!(place.says(Backend::AppArmor)[0].starts_with("CRI-O does not start with "));
    }
}
