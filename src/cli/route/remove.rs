//! `route remove`.

use serde_json::json;

use crate::cli::remote::Remote;
use crate::cli::report::print;
use crate::cli::words::clean;
use crate::cli::{Format, Status};
use crate::control::client::{Error, request_id};
use crate::control::proto::RemoveRequest;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The routes, one after the other.
    #[arg(required = true)]
    ids: Vec<String>,
    /// Only if the route, which must be the only one, has this revision.
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
    /// Under which id the write, which must be the only one, may be repeated; made up without.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

pub(super) async fn run(arguments: &Arguments, remote: &Remote) -> Result<Status, Error> {
    let is_for_one = arguments.if_revision.is_some() || arguments.request_id.is_some();
    if is_for_one && arguments.ids.len() > 1 {
        crate::cli::report::complain(
            "--if-revision and --request-id are for one route; name one\n",
        );
        return Ok(Status::Usage);
    }
    let mut worst = Status::Done;
    for id in &arguments.ids {
        let request = RemoveRequest {
            id: id.clone(),
            if_revision: arguments.if_revision,
            request_id: arguments.request_id.clone().unwrap_or_else(request_id),
        };
        let request_id = request.request_id.clone();
        let answer = match remote.client.remove(request).await {
            Ok(answer) => answer,
            Err(error @ Error::Refused { .. }) => {
                worst = remote.refuse_route(&error, id).await;
                continue;
            }
            // The others would fare no better.
            Err(error) => return Err(error),
        };
        let style = remote.voice.style;
        print(&match remote.voice.format {
            Format::Json => {
                let told = json!({
                    "id": id,
                    "revision": answer.revision,
                    "changed": answer.changed,
                    "request_id": request_id,
                });
                format!("{told}\n")
            }
            Format::Table => format!(
                "{} is {} at revision {}\n",
                style.strong(&clean(id)),
                style.good("removed"),
                answer.revision
            ),
        });
    }
    Ok(worst)
}
