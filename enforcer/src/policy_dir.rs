//! A directory of policies: what is in force now, whatever state the files are in.
//!
//! Each `*.yaml` or `*.yml` file stands for itself; `*.test.yaml` are expectations and not read. A document that is refused never affects another, and as long as its file
//! is there, the version of the policy that was accepted last stays in force in its place. So does everything that a file
//! held when it cannot be read, is empty (an editor has just truncated it) or changes while it is read. To withdraw a policy,
//! remove the document, or the file.
//!
//! The accepted versions are kept in the state directory as the texts they were in, newest first, so that positions in
//! messages are right. A file whose documents are all good needs one; each broken one may need an older text besides.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use portcullis_policy::expectation::FILE_ENDING;
use portcullis_policy::parse::{Identity, Parsed};
use portcullis_policy::yaml::MAX_FILE_BYTES;
use portcullis_policy::{Diagnostic, Options, Policy, parse};
use sha2::{Digest, Sha256};

use crate::{Error, files};

/// Most policy files in a directory.
pub const MAX_POLICY_FILES: usize = 4096;
/// Most bytes that all policy files may have together.
pub const MAX_POLICY_BYTES: usize = 64 << 20;
/// Most older texts that are kept of one file.
const MAX_KEPT: usize = 4;
/// How often a file that changes under the reader is read again.
const MAX_READS: usize = 3;

/// A directory of policies.
#[derive(Debug, Clone)]
pub struct PolicyDir {
    directory: PathBuf,
    kept: Option<PathBuf>,
}

/// What a directory holds.
#[derive(Debug, Default)]
pub struct Policies {
    /// The policies in force.
    pub policies: Vec<Policy>,
    /// What is wrong, a sentence each; what it says it replaced stayed in force.
    pub problems: Vec<Problem>,
    /// What is doubtful.
    pub warnings: Vec<Diagnostic>,
}

/// Something wrong with a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// What is wrong, with its place.
    pub message: String,
    /// The policies of older versions that are in force in its stead, as [`Policy::id`]s.
    pub kept: Vec<String>,
}

impl PolicyDir {
    /// The policies in `directory`; accepted versions are kept in `kept`, if given.
    #[must_use]
    pub fn new(directory: &Path, kept: Option<&Path>) -> PolicyDir {
        PolicyDir { directory: directory.to_owned(), kept: kept.map(Path::to_owned) }
    }

    /// Reads all of them. A directory that does not exist has none.
    ///
    /// # Errors
    /// If the directory cannot be listed or has more than the limits allow. What is wrong with one file is no error.
    pub fn read(&self) -> Result<Policies, Error> {
        let names = files::list(&self.directory, 2 * MAX_POLICY_FILES)?;
        let mut found = Policies::default();
        let mut keys = BTreeSet::new();
        let (mut count, mut bytes) = (0usize, 0usize);
        for name in names {
            let is_policy =
                !name.starts_with('.') && !name.ends_with(FILE_ENDING) && (name.ends_with(".yaml") || name.ends_with(".yml"));
            let path = self.directory.join(&name);
            if !is_policy || path.is_dir() {
                continue;
            }
            count += 1;
            let text = read_settled(&path);
            if matches!(&text, Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound) {
                continue;
            }
            bytes += text.as_ref().map_or(0, Vec::len);
            if count > MAX_POLICY_FILES || bytes > MAX_POLICY_BYTES {
                let what = format!("has more than {MAX_POLICY_FILES} policy files or {MAX_POLICY_BYTES} bytes of them");
                return Err(Error::Limit { path: self.directory.clone(), what, help: "remove policies that are not needed" });
            }
            let key = key(&path);
            self.file(&path, &key, text, &mut found);
            keys.insert(key);
        }
        self.forget_all_but(&keys);
        Ok(found)
    }

    fn file(&self, path: &Path, key: &str, text: Result<Vec<u8>, Error>, found: &mut Policies) {
        let older = self.kept_texts(key);
        let (text, unreadable) = match text {
            Ok(text) => (text, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let mut parsed = parse(path, &text, Options::default());
        let nothing = parsed.documents.is_empty();
        if nothing && older.is_empty() && unreadable.is_none() {
            return;
        }
        found.warnings.append(&mut parsed.warnings);
        let errors: Vec<String> = parsed.errors().map(ToString::to_string).collect();
        let accepted = parsed.policies().next().is_some();
        let mut version = Version::of(parsed);
        let needed = if nothing || !errors.is_empty() { version.fill(path, &older, nothing) } else { 0 };
        let replaced = version.policies.len() - version.replaced;
        let kept: Vec<String> = version.policies[replaced..].iter().map(|(_, policy)| policy.id()).collect();
        let messages = match unreadable {
            Some(message) => vec![message],
            None if nothing => {
                vec![format!("{}: the file holds no policy any more; remove it to withdraw what it held", path.display())]
            }
            None => errors,
        };
        let problem = |message| Problem { file: path.to_owned(), message, kept: kept.clone() };
        found.problems.extend(messages.into_iter().map(problem));
        found.policies.extend(version.policies.into_iter().map(|(_, policy)| policy));
        // The current text is worth keeping if anything in it was accepted.
        let current = accepted.then_some(&text[..]);
        let texts: Vec<&[u8]> = current.into_iter().chain(older.iter().take(needed).map(|text| &text[..])).collect();
        self.keep(key, &texts, &older);
    }

    fn kept_path(&self, key: &str, age: usize) -> Option<PathBuf> {
        self.kept.as_ref().map(|kept| kept.join(format!("{key}.{age}")))
    }

    /// The texts that were kept, newest first. What cannot be read is not there.
    fn kept_texts(&self, key: &str) -> Vec<Vec<u8>> {
        let paths = (0..=MAX_KEPT).map_while(|age| self.kept_path(key, age));
        paths.map_while(|path| files::read(&path, MAX_FILE_BYTES as u64).ok()).collect()
    }

    /// Keeping is for later; that it fails must not keep a container from starting.
    fn keep(&self, key: &str, texts: &[&[u8]], older: &[Vec<u8>]) {
        for age in 0..=MAX_KEPT {
            let Some(path) = self.kept_path(key, age) else { return };
            match texts.get(age) {
                Some(text) if older.get(age).is_some_and(|kept| kept == text) => {}
                Some(text) => drop(files::write(&path, text)),
                None if age < older.len() => drop(files::remove(&path)),
                None => {}
            }
        }
    }

    fn forget_all_but(&self, keys: &BTreeSet<String>) {
        let Some(kept) = &self.kept else { return };
        let names = files::list(kept, 2 * MAX_POLICY_FILES * MAX_KEPT).unwrap_or_default();
        for name in names {
            // Not the files that another process is just writing.
            let key = name.split('.').next().unwrap_or_default();
            if !key.is_empty() && !keys.contains(key) {
                drop(files::remove(&kept.join(&name)));
            }
        }
    }
}

/// The policies of a text, and what of it was refused.
struct Version {
    policies: Vec<(Identity, Policy)>,
    refused: Vec<Identity>,
    /// How many of the policies, at the end, came from older texts.
    replaced: usize,
}

impl Version {
    fn of(parsed: Parsed) -> Version {
        let mut version = Version { policies: Vec::new(), refused: Vec::new(), replaced: 0 };
        for (document, identity) in parsed.documents.into_iter().zip(parsed.identities) {
            match document {
                Ok(policy) => version.policies.push((identity, policy)),
                Err(_) => version.refused.push(identity),
            }
        }
        version
    }

    /// Takes from older texts what this one has gaps for; how many of them that needed. A document that does not even tell
    /// its name may have been any of the older ones.
    fn fill(&mut self, path: &Path, older: &[Vec<u8>], whole: bool) -> usize {
        let named = |identities: &[Identity]| -> BTreeSet<Identity> {
            identities.iter().filter(|identity| !identity.name.is_empty()).cloned().collect()
        };
        let nameless = |identities: &[Identity]| identities.iter().any(|identity| identity.name.is_empty());
        let mut have: BTreeSet<Identity> = self.policies.iter().map(|(identity, _)| identity.clone()).collect();
        let mut wanted = named(&self.refused);
        let mut any = whole || nameless(&self.refused);
        let mut needed = 0;
        for (age, text) in older.iter().enumerate() {
            let version = Version::of(parse(path, text, Options::default()));
            for (identity, policy) in version.policies {
                if (any || wanted.contains(&identity)) && have.insert(identity.clone()) {
                    self.policies.push((identity, policy));
                    self.replaced += 1;
                    needed = age + 1;
                }
            }
            // What an older text had gaps for is asked of those before it, but only if it speaks for this one as a whole.
            if any {
                wanted.append(&mut named(&version.refused));
                any = nameless(&version.refused);
            }
            wanted.retain(|identity| !have.contains(identity));
            if wanted.is_empty() && !any {
                break;
            }
        }
        needed
    }
}

/// Reads a file that was not written to meanwhile, as far as its size and times tell.
fn read_settled(path: &Path) -> Result<Vec<u8>, Error> {
    use std::os::unix::fs::MetadataExt;
    let stamp = || std::fs::metadata(path).ok().map(|data| (data.ino(), data.size(), data.mtime(), data.mtime_nsec()));
    for _ in 1..MAX_READS {
        let before = stamp();
        let text = files::read(path, MAX_FILE_BYTES as u64)?;
        if before == stamp() {
            return Ok(text);
        }
    }
    files::read(path, MAX_FILE_BYTES as u64)
}

fn key(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    Sha256::digest(path.as_os_str().as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn policy(name: &str, path: &str) -> String {
        format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: {name}\nspec:\n  selector:\n    \
             matchLabels:\n      app: x\n  file:\n    matchPaths:\n    - path: {path}\n  action: Block\n---\n"
        )
    }

    struct Place {
        _temporary: tempfile::TempDir,
        policies: PathBuf,
        dir: PolicyDir,
    }

    fn place() -> Place {
        let temporary = tempfile::tempdir().unwrap();
        let (policies, kept) = (temporary.path().join("policies"), temporary.path().join("kept"));
        fs::create_dir(&policies).unwrap();
        fs::create_dir(&kept).unwrap();
        let dir = PolicyDir::new(&policies, Some(&kept));
        Place { _temporary: temporary, policies, dir }
    }

    impl Place {
        fn write(&self, name: &str, text: &str) {
            fs::write(self.policies.join(name), text).unwrap();
        }

        /// Names with the line of their first rule, sorted, and the number of problems.
        fn read(&self) -> (Vec<String>, usize) {
            let found = self.dir.read().unwrap();
            let mut names: Vec<String> =
                found.policies.iter().map(|policy| format!("{}:{}", policy.name, policy.rules[0].origin.line)).collect();
            names.sort();
            (names, found.problems.len())
        }
    }

    #[test]
    fn one_bad_file_disables_no_other() {
        let place = place();
        place.write("a.yaml", &policy("a", "/a"));
        place.write("b.yml", "kind: [");
        place.write("c.yaml", "\u{feff}\0");
        place.write(".hidden.yaml", &policy("hidden", "/a"));
        place.write("a.test.yaml", "cases: []");
        place.write("readme.txt", "not a policy");
        let (names, problems) = place.read();
        assert_eq!(names, ["a:11"]);
        assert!(problems >= 1);
    }

    #[test]
    fn a_directory_that_is_not_there_has_no_policies() {
        let found = PolicyDir::new(Path::new("/nowhere/at/all"), None).read().unwrap();
        assert!(found.policies.is_empty() && found.problems.is_empty());
    }

    #[test]
    fn a_broken_document_leaves_its_last_version_in_force() {
        let place = place();
        place.write("p.yaml", &(policy("a", "/a") + &policy("b", "/b")));
        assert_eq!(place.read(), (vec!["a:11".into(), "b:24".into()], 0));
        // `b` broken and a good `c` after it: the text of `b` is the old one, with its old lines.
        let broken = policy("b", "/b").replace("matchPaths", "matchPath");
        place.write("p.yaml", &(policy("a", "/a") + &broken + &policy("c", "/c")));
        for _ in 0..3 {
            assert_eq!(place.read(), (vec!["a:11".into(), "b:24".into(), "c:37".into()], 1));
        }
        // Now `c` breaks too: its last version was in the text that had `b` broken.
        place.write("p.yaml", &(broken.clone() + &policy("c", "/c").replace("path:", "paths:")));
        let (names, problems) = place.read();
        assert_eq!((names, problems >= 2), (vec!["b:24".into(), "c:37".into()], true), "`a` was removed");
        place.write("p.yaml", &policy("c", "/c"));
        assert_eq!(place.read(), (vec!["c:11".into()], 0));
    }

    #[test]
    fn a_file_that_cannot_be_read_stays_in_force_until_it_is_removed() {
        let place = place();
        let both = policy("a", "/a") + &policy("b", "/b");
        place.write("p.yaml", &both);
        let whole = (vec!["a:11".to_owned(), "b:24".to_owned()], 1);
        assert_eq!(place.read().0, whole.0);
        place.write("p.yaml", "");
        assert_eq!(place.read(), whole, "truncated");
        place.write("p.yaml", "\t- not: [yaml");
        assert_eq!(place.read().0, whole.0, "nameless and broken");
        place.write("p.yaml", &"x".repeat(MAX_FILE_BYTES + 1));
        assert_eq!(place.read(), whole, "too large");
        fs::remove_file(place.policies.join("p.yaml")).unwrap();
        assert_eq!(place.read(), (Vec::new(), 0), "withdrawn");
        place.write("p.yaml", "");
        assert_eq!(place.read(), (Vec::new(), 0), "forgotten with the file");
    }
}
