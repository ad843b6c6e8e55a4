//! What a handler answers when it cannot do what the runtime wants.

use std::fmt;

/// The kind of a [`Failure`], a status code of ttrpc.
///
/// The runtime treats all of them alike: it fails the request and keeps the plugin. They are for whoever reads its log.
/// UNIMPLEMENTED is not among them: it would make the runtime ask again in its older dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Code {
    /// No more is known.
    #[default]
    Unknown,
    /// The request makes no sense.
    InvalidArgument,
    /// Not in time.
    DeadlineExceeded,
    /// Something the request is about does not exist.
    NotFound,
    /// The request is forbidden.
    PermissionDenied,
    /// Too much of something.
    ResourceExhausted,
    /// The request makes no sense now.
    FailedPrecondition,
    /// The plugin is broken.
    Internal,
    /// Something the plugin needs is not there.
    Unavailable,
}

impl Code {
    pub(crate) fn status(self) -> ttrpc::Code {
        match self {
            Code::Unknown => ttrpc::Code::UNKNOWN,
            Code::InvalidArgument => ttrpc::Code::INVALID_ARGUMENT,
            Code::DeadlineExceeded => ttrpc::Code::DEADLINE_EXCEEDED,
            Code::NotFound => ttrpc::Code::NOT_FOUND,
            Code::PermissionDenied => ttrpc::Code::PERMISSION_DENIED,
            Code::ResourceExhausted => ttrpc::Code::RESOURCE_EXHAUSTED,
            Code::FailedPrecondition => ttrpc::Code::FAILED_PRECONDITION,
            Code::Internal => ttrpc::Code::INTERNAL,
            Code::Unavailable => ttrpc::Code::UNAVAILABLE,
        }
    }
}

/// The runtime is to fail the request, and to log why.
///
/// `?` makes one of any error, with [`Code::Unknown`] and the error's sources in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub code: Code,
    /// What was wrong and what to do about it: it ends up in `kubectl describe pod`.
    pub message: String,
}

impl Failure {
    /// A failure of a kind.
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

// For this, Failure itself is no std::error::Error, as with anyhow's.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors show their source themselves.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Failure::new(Code::Unknown, message)
    }
}
