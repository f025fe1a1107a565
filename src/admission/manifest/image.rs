//! The container image that an app runs in, as a reference: `registry.example/path/name:tag`.
//!
//! What a reference lacks is told here; whether the platform takes the image is judged elsewhere.

use std::fmt;
use std::str::FromStr;

/// A reference to a container image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    written: String,
    registry: Option<String>,
    tag: Option<String>,
    has_digest: bool,
}

/// Why a text is no [`Image`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Nothing before the tag.
    #[error("it names no image")]
    Empty,
    /// `https://` or the like before it.
    #[error("a scheme (`https://`) does not belong to it")]
    Scheme,
    /// A path that is not lower case letters, digits and `.`, `_`, `-` between slashes.
    #[error("its path has other characters than a-z, 0-9, `.`, `_`, `-` and `/`")]
    Path,
    /// A tag that is none.
    #[error("its tag must be 1 to 128 letters, digits, `.`, `_` or `-`")]
    Tag,
    /// A digest that is none.
    #[error("its digest must be `sha256:` and 64 hexadecimal digits")]
    Digest,
}

impl Image {
    /// The registry, if the reference names one that others can reach.
    #[must_use]
    pub fn remote_registry(&self) -> Option<&str> {
        let registry = self.registry.as_deref()?;
        let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
        (host != "localhost" && !host.starts_with("127.") && host != "[::1]").then_some(registry)
    }

    /// Whether it may be another image tomorrow: the tag `latest`, which is also what no tag
    /// means. A digest always means the same image.
    #[must_use]
    pub fn is_latest(&self) -> bool {
        !self.has_digest && self.tag.as_deref().is_none_or(|tag| tag == "latest")
    }

    /// Whether the reference is what a pattern says, in which each `*` stands for any letters.
    #[must_use]
    pub fn is_like(&self, pattern: &str) -> bool {
        let Some((first, rest)) = pattern.split_once('*') else { return self.written == pattern };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let written = self.written.strip_prefix(first).and_then(|rest| rest.strip_suffix(last));
        let Some(mut left) = written else { return false };
        // The first occurrence of each part leaves the most for those behind it.
        middle.split('*').all(|part| match left.split_once(part) {
            Some((_, after)) => {
                left = after;
                true
            }
            None => false,
        })
    }
}

impl FromStr for Image {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        if text.contains("://") {
            return Err(ImageError::Scheme);
        }
        let (named, digest) = text.split_once('@').map_or((text, None), |(n, d)| (n, Some(d)));
        if let Some(digest) = digest {
            let digits = digest.strip_prefix("sha256:").ok_or(ImageError::Digest)?;
            if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(ImageError::Digest);
            }
        }
        let name_start = named.rfind('/').map_or(0, |slash| slash + 1);
        let (before, name) = named.split_at(name_start);
        let (name, tag) = name.split_once(':').map_or((name, None), |(n, t)| (n, Some(t)));
        if let Some(tag) = tag {
            let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if tag.is_empty() || tag.len() > 128 || !tag.bytes().all(is_word) {
                return Err(ImageError::Tag);
            }
        }
        if name.is_empty() {
            return Err(ImageError::Empty);
        }
        let first = before.split('/').next().unwrap_or_default();
        let is_registry = first.contains(['.', ':']) || first == "localhost";
        let registry = is_registry.then(|| first.to_owned());
        let path = if is_registry { before.get(first.len() + 1..) } else { Some(before) };
        let is_path = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte)
        };
        let path = format!("{}{name}", path.unwrap_or_default());
        if !path.bytes().all(is_path) || path.split('/').any(str::is_empty) {
            return Err(ImageError::Path);
        }
        let tag = tag.map(str::to_owned);
        Ok(Self { written: text.to_owned(), registry, tag, has_digest: digest.is_some() })
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> Image {
        text.parse().unwrap()
    }

    #[test]
    fn a_reference_is_taken_apart() {
        let digest = format!("r.test/app@sha256:{}", "0a".repeat(32));
        for (text, registry, is_latest) in [
            ("registry.example/image:20230710", Some("registry.example"), false),
            ("ghcr.io/a/b_c/d-e:v1.2", Some("ghcr.io"), false),
            ("registry.example:5000/image", Some("registry.example:5000"), true),
            ("registry.example/image:latest", Some("registry.example"), true),
            ("registry.example/image:latest-1", Some("registry.example"), false),
            (&digest, Some("r.test"), false),
            ("python:3.12", None, false),
            ("library/python:3.12", None, false),
            ("localhost:5000/image:1", None, false),
            ("localhost/image:1", None, false),
            ("127.0.0.1:5000/image:1", None, false),
        ] {
            let image = image(text);
            let found = (image.remote_registry(), image.is_latest());
            assert_eq!(found, (registry, is_latest), "{text}");
            assert_eq!(image.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_reference_is_told_why() {
        for (text, why) in [
            ("", ImageError::Empty),
            ("r.test/", ImageError::Empty),
            (":tag", ImageError::Empty),
            ("https://r.test/image:1", ImageError::Scheme),
            ("r.test/Image:1", ImageError::Path),
            ("r.test//image:1", ImageError::Path),
            ("r.test/my image:1", ImageError::Path),
            ("r.test/image:", ImageError::Tag),
            ("r.test/image:a b", ImageError::Tag),
            ("r.test/image@sha256:00", ImageError::Digest),
            ("r.test/image@md5:00", ImageError::Digest),
        ] {
            assert_eq!(text.parse::<Image>(), Err(why), "{text}");
        }
    }

    #[test]
    fn a_star_stands_for_any_letters_and_nothing_else_does() {
        let written = image("r.test/team/app:1.2");
        for pattern in ["*", "r.test/*", "*:1.2", "r.test/*/app:*", "r.test/team/app:1.2", "r*t*2"]
        {
            assert!(written.is_like(pattern), "{pattern}");
        }
        for pattern in
            ["", "r.test", "r.test/", "*:1", "x*", "*x", "r.test/team/app:1.2*2", "team/*", "R*"]
        {
            assert!(!written.is_like(pattern), "{pattern}");
        }
        assert!(!image("evil.test/r.test/app:1").is_like("r.test/*"));
    }
}
