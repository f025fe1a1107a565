//! What is told of a request, where TLS ends here: what it asked for, and the class of its answer.

/// What a request asked for, and the answer that it got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// The method, shortened.
    pub method: Box<str>,
    /// The path without its query, shortened.
    pub path: Box<str>,
    /// How it was asked: `h2`, `http/1.1` or `http/1.0`.
    pub protocol: &'static str,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
}

/// The classes of answers to requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusClass {
    /// 100 to 199: it became something else.
    Informational,
    /// 200 to 299.
    Success,
    /// 300 to 399.
    Redirection,
    /// 400 to 499.
    ClientError,
    /// 500 to 599.
    ServerError,
    /// No answer was given.
    None,
}

impl StatusClass {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Informational,
        Self::Success,
        Self::Redirection,
        Self::ClientError,
        Self::ServerError,
        Self::None,
    ];

    /// The class of a status.
    #[must_use]
    pub const fn of(status: Option<u16>) -> Self {
        match status {
            Some(100..=199) => Self::Informational,
            Some(200..=299) => Self::Success,
            Some(300..=399) => Self::Redirection,
            Some(400..=499) => Self::ClientError,
            Some(_) => Self::ServerError,
            None => Self::None,
        }
    }

    /// The word that stands for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::None => "none",
        }
    }
}
