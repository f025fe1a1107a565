//! The status page: one document without any other, and the policy that holds it to that.
//!
//! The policy names the digests of the page's own script and style, so that a browser runs nothing
//! else, wherever it might come from.

use aws_lc_rs::digest::{SHA256, digest};
use hyper::header::HeaderValue;

const HTML: &str = include_str!("page.html");

/// The page and its policy.
#[derive(Debug)]
pub(super) struct Page {
    policy: HeaderValue,
}

impl Page {
    pub(super) fn new() -> Self {
        let style = inside("style").map(source).unwrap_or_default();
        let script = inside("script").map(source).unwrap_or_default();
        let policy = format!(
            "default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        // Digests in base64 are ASCII; were they not, the page may do nothing at all.
        let nothing = HeaderValue::from_static("default-src 'none'");
        Self { policy: HeaderValue::try_from(policy).unwrap_or(nothing) }
    }

    pub(super) fn policy(&self) -> HeaderValue {
        self.policy.clone()
    }

    #[expect(clippy::unused_self, reason = "page and policy belong together")]
    pub(super) fn html(&self) -> &'static str {
        HTML
    }
}

/// What stands between the tags of the one element of this name.
fn inside(element: &str) -> Option<&'static str> {
    let (_, after) = HTML.split_once(&format!("<{element}>"))?;
    Some(after.split_once(&format!("</{element}>"))?.0)
}

fn source(text: &str) -> String {
    format!("'sha256-{}'", base64(digest(&SHA256, text.as_bytes()).as_ref()))
}

/// RFC 4648 §4, for a few bytes.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |place: usize| u32::from(chunk.get(place).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = LETTERS.get((bits >> (18 - 6 * place) & 63) as usize).copied();
            text.push(if place > chunk.len() { '=' } else { char::from(letter.unwrap_or(b'=')) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (text, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_inserts_no_markup() {
        let policy = Page::new().policy();
        assert_eq!(policy.to_str().unwrap().matches("'sha256-").count(), 2);
        for tag in ["<style>", "<script>"] {
            assert_eq!(HTML.matches(tag).count(), 1, "{tag}");
        }
        for never in [
            "http://",
            "https://",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "style=\"",
        ] {
            let found = HTML.replace("http://www.w3.org/2000/svg", "");
            assert!(!found.contains(never), "{never}");
        }
    }
}
