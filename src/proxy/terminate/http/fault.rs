//! What can be wrong with what a client sends over HTTP/1.1. Pure.

use hyper::StatusCode;

/// What is wrong with a request, so that it is not passed on: whoever stands behind us could read it
/// in another way (RFC 9112 §11.2), or it is no HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// More empty lines before it than any client sends.
    EmptyLines,
    /// The first line is none of a request.
    RequestLine,
    /// Its target alone is longer than a head may be.
    LongTarget,
    /// The version is neither 1.0 nor 1.1.
    Version,
    /// A line that ends without CR, or a CR within one.
    LineEnd,
    /// A header that goes on in the next line.
    Fold,
    /// A line that is no header.
    Header,
    /// More headers than are taken.
    ManyHeaders,
    /// More bytes of them.
    LongHead,
    /// A length and a transfer coding.
    Both,
    /// A length said twice.
    Lengths,
    /// A length that is no plain number.
    Length,
    /// Another transfer coding than chunked, or several, or one that its version does not know.
    Coding,
    /// A chunk whose size is no plain number.
    Size,
}

impl Fault {
    /// The answer to it.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::LongTarget => StatusCode::URI_TOO_LONG,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::ManyHeaders | Self::LongHead => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::EmptyLines
            | Self::RequestLine
            | Self::LineEnd
            | Self::Fold
            | Self::Header
            | Self::Both
            | Self::Lengths
            | Self::Length
            | Self::Coding
            | Self::Size => StatusCode::BAD_REQUEST,
        }
    }

    /// What the client is told of it.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::EmptyLines => "there are too many empty lines before the request",
            Self::RequestLine => "its first line is no request line",
            Self::LongTarget => "its target is too long",
            Self::Version => "this version of HTTP is not spoken here",
            Self::LineEnd => "a line does not end in CR LF",
            Self::Fold => "a header is folded",
            Self::Header => "a line is no header",
            Self::ManyHeaders => "it has too many headers",
            Self::LongHead => "its headers are too long",
            Self::Both => "both Content-Length and Transfer-Encoding",
            Self::Lengths => "more than one Content-Length",
            Self::Length => "Content-Length is no number",
            Self::Coding => "a Transfer-Encoding other than chunked",
            Self::Size => "the size of a chunk is no number",
        }
    }

    /// What a record calls it.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::EmptyLines => "empty_lines",
            Self::RequestLine => "bad_request_line",
            Self::LongTarget => "long_target",
            Self::Version => "bad_version",
            Self::LineEnd => "bad_line_end",
            Self::Fold => "folded_header",
            Self::Header => "bad_header",
            Self::ManyHeaders => "many_headers",
            Self::LongHead => "long_head",
            Self::Both => "length_and_coding",
            Self::Lengths => "two_lengths",
            Self::Length => "bad_length",
            Self::Coding => "bad_coding",
            Self::Size => "bad_chunk",
        }
    }
}
