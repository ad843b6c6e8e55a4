//! Reading the policy files that are named on the command line.

use std::io::Read;
use std::path::{Path, PathBuf};

use portcullis_policy::expectation::FILE_ENDING;
use portcullis_policy::{Options, Parsed, parse, yaml};

use crate::failure::Failure;

/// A file and what it holds.
pub(crate) struct PolicyFile {
    pub(crate) text: Vec<u8>,
    pub(crate) parsed: Parsed,
}

/// Most files that one command reads.
const MAX_FILES: usize = 10_000;

/// The YAML files among `paths` and in the directories among them, sorted.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = paths.to_vec();
    while let Some(path) = left.pop() {
        if !path.is_dir() {
            found.push(path);
            continue;
        }
        let entries = std::fs::read_dir(&path).map_err(|error| Failure::file(&path, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| Failure::file(&path, error))?.path();
            let yaml = entry.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
            let symlink = entry.is_symlink();
            if yaml || (entry.is_dir() && !symlink) {
                left.push(entry);
            }
        }
        if left.len() + found.len() > MAX_FILES {
            return Err(Failure::TooManyFiles { limit: MAX_FILES });
        }
    }
    found.sort();
    Ok(found)
}

/// The policy files among them: all but the expectations that lie beside them and were not asked for by name.
pub(crate) fn policies(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut found = find(paths)?;
    found.retain(|path| paths.contains(path) || !path.to_string_lossy().ends_with(FILE_ENDING));
    Ok(found)
}

/// Reads one file. One byte more than a policy file may have is read, so that the parser says what is wrong.
pub(crate) fn text(path: &Path) -> Result<Vec<u8>, Failure> {
    let file = std::fs::File::open(path).map_err(|error| Failure::file(path, error))?;
    let mut text = Vec::new();
    let limit = yaml::MAX_FILE_BYTES as u64 + 1;
    file.take(limit).read_to_end(&mut text).map_err(|error| Failure::file(path, error))?;
    Ok(text)
}

/// Reads and parses the policies of one file.
pub(crate) fn read(path: &Path, options: Options) -> Result<PolicyFile, Failure> {
    let text = text(path)?;
    let parsed = parse(path, &text, options);
    Ok(PolicyFile { text, parsed })
}
