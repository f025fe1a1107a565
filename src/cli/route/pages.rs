//! All pages of an answer that comes in pages.

use crate::control::client::{Client, Error};
use crate::control::proto::{ListRequest, RouteState};

/// Routes of a page: the proxy looks at all of them for each page, and an answer has a bound.
const PAGE: u32 = 5000;

/// All routes that a request names, and the revision of the store that all pages know: what comes
/// while they are read may have changed a page before.
pub(super) async fn all_routes(
    client: &Client,
    request: ListRequest,
) -> Result<(Vec<RouteState>, u64), Error> {
    let mut request = ListRequest { page_size: PAGE, ..request };
    let (mut routes, mut revision) = (Vec::new(), u64::MAX);
    loop {
        let page = client.list(request.clone()).await?;
        routes.extend(page.routes);
        revision = revision.min(page.revision);
        if page.next_page_token.is_empty() {
            return Ok((routes, revision));
        }
        request.page_token = page.next_page_token;
    }
}
