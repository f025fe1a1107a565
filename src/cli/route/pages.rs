//! All pages of an answer that comes in pages.

use crate::control::client::{Client, Error};
use crate::control::proto::{ListRequest, RouteState};

/// Routes of a page: the proxy looks at all of them for each page, and an answer has a bound.
const PAGE: u32 = 5000;

/// All routes that a request names, and the newest revision of the store by the last page.
pub(super) async fn all_routes(
    client: &Client,
    request: ListRequest,
) -> Result<(Vec<RouteState>, u64), Error> {
    let mut request = ListRequest { page_size: PAGE, ..request };
    let mut routes = Vec::new();
    loop {
        let page = client.list(request.clone()).await?;
        routes.extend(page.routes);
        if page.next_page_token.is_empty() {
            return Ok((routes, page.revision));
        }
        request.page_token = page.next_page_token;
    }
}
