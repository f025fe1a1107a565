//! `route apply`: the stored routes become what a file says.
//!
//! What would change is asked first and shown; what is then applied is applied to the same
//! revision, or not at all. Live connections are cut only after somebody has agreed to that.

use std::collections::HashMap;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::differences::{Sum, json, rows};
use super::draft;
use super::pages::all_routes;
use super::steps::{Move, steps};
use crate::cli::progress::Progress;
use crate::cli::remote::Remote;
use crate::cli::report::{complain, complain_all, print};
use crate::cli::words::counted;
use crate::cli::{Format, Status};
use crate::control::client::{Error, Refusal};
use crate::control::proto::{
    ApplyRequest, ApplyResponse, Difference, ListRequest, Route, RouteState,
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// A routes file, a folder of them, or standard input (`-`).
    file: PathBuf,
    /// Only tell what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    agreed: Agreed,
    /// Leave stored routes that the file does not name as they are.
    #[arg(long)]
    keep_others: bool,
    /// Not all in one transaction, but about so many routes in each: for a store that bounds it.
    #[arg(long, value_name = "ROUTES")]
    in_steps: Option<NonZeroUsize>,
    /// Only if no stored route was changed after this revision.
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
}

/// What is agreed to beforehand.
#[derive(Debug, clap::Args)]
struct Agreed {
    /// Cut live connections, or remove all routes, without asking.
    #[arg(long, short)]
    yes: bool,
    /// Remove as many routes as it takes, whatever `routes.max_removed_percent` says.
    #[arg(long)]
    allow_removal: bool,
}

pub(super) async fn run(arguments: &Arguments, remote: &Remote) -> Result<Status, Error> {
    let voice = remote.voice;
    let routes = match draft::read(&arguments.file) {
        Ok(routes) => routes,
        Err(findings) => {
            let status = complain_all(&findings, voice.complaints);
            complain("nothing is applied: a route that is left out would be removed\n");
            return Ok(status);
        }
    };
    let (stored, revision) = look(arguments, remote).await?;
    let plan = Plan { arguments, remote, routes, revision };
    let expected = match plan.apply(true).await {
        Ok(expected) => expected,
        Err(error) => return Ok(plan.refuse(&error)),
    };
    let sum = Sum::of(&expected);
    let wanted = by_id(plan.routes.clone());
    let is_plan = arguments.dry_run || expected.differences.is_empty();
    show(&expected, &wanted, is_plan, remote);
    if is_plan {
        return Ok(Status::Done);
    }
    let question = question(&sum, plan.routes.is_empty() && !arguments.keep_others);
    if let Some(question) = question.filter(|_| !arguments.agreed.yes)
        && !agree(&question, remote)
    {
        return Ok(Status::Refused);
    }
    let revision = match arguments.in_steps {
        None => {
            let progress = Progress::new(1, "applying", voice);
            let applied = plan.apply(false).await;
            drop(progress);
            match applied {
                Ok(answer) => answer.revision,
                Err(error) => return Ok(plan.refuse(&error)),
            }
        }
        Some(size) => {
            let stored = stored.into_iter().filter_map(|state| state.route);
            let moves = moves(&expected, wanted, by_id(stored));
            match plan.step(steps(moves, size.get())).await {
                Ok(revision) => revision,
                Err(error) => return Ok(plan.refuse(&error)),
            }
        }
    };
    match voice.format {
        Format::Json => print(&format!("{}\n", json(&expected, Some(revision)))),
        Format::Table => print(&format!(
            "{} at revision {revision}: {}\n",
            voice.style.good("applied"),
            sum.words(voice.style)
        )),
    }
    Ok(Status::Done)
}

/// The store's revision, and its routes where it matters what they hold.
async fn look(arguments: &Arguments, remote: &Remote) -> Result<(Vec<RouteState>, u64), Error> {
    let request = ListRequest { source: "store".to_owned(), ..ListRequest::default() };
    let (stored, revision) = if arguments.in_steps.is_some() {
        all_routes(&remote.client, request).await?
    } else {
        let page = remote.client.list(ListRequest { page_size: 1, ..request }).await?;
        (Vec::new(), page.revision)
    };
    Ok((stored, arguments.if_revision.unwrap_or(revision)))
}

/// What is to be applied, to which revision.
struct Plan<'a> {
    arguments: &'a Arguments,
    remote: &'a Remote,
    routes: Vec<Route>,
    revision: u64,
}

impl Plan<'_> {
    async fn apply(&self, dry_run: bool) -> Result<ApplyResponse, Error> {
        let request = ApplyRequest {
            routes: self.routes.clone(),
            dry_run,
            if_revision: Some(self.revision),
            allow_removal: self.arguments.agreed.allow_removal,
            keep_others: self.arguments.keep_others,
            ..ApplyRequest::default()
        };
        self.remote.client.apply(request).await
    }

    /// Each step builds on the one before; what was done before a step that fails stays done.
    async fn step(&self, steps: Vec<Vec<Move>>) -> Result<u64, Error> {
        let count = u64::try_from(steps.len()).unwrap_or(u64::MAX);
        let progress = Progress::new(count, "applying", self.remote.voice);
        let mut revision = self.revision;
        for (done, step) in steps.into_iter().enumerate() {
            let (wanted, gone): (Vec<_>, Vec<_>) =
                step.into_iter().partition(|one| one.route.is_some());
            let request = ApplyRequest {
                routes: wanted.into_iter().filter_map(|one| one.route).collect(),
                removals: gone.into_iter().map(|one| one.id).collect(),
                keep_others: true,
                if_revision: Some(revision),
                allow_removal: self.arguments.agreed.allow_removal,
                ..ApplyRequest::default()
            };
            match self.remote.client.apply(request).await {
                Ok(answer) => revision = answer.revision,
                Err(error) => {
                    drop(progress);
                    if done > 0 {
                        complain(&format!(
                            "{done} of {} are done, up to revision {revision}; the same command does the rest\n",
                            counted(count, "step")
                        ));
                    }
                    return Err(error);
                }
            }
            progress.step();
        }
        Ok(revision)
    }

    fn refuse(&self, error: &Error) -> Status {
        // The proxy names fields of its request; here they are options.
        let remedy = match error {
            Error::Unsure { .. } => "the same command does what is not yet done",
            Error::Refused { refusal: Refusal::Precondition, message }
                if message.contains("allow_removal") =>
            {
                "--allow-removal removes them all the same"
            }
            Error::Refused { refusal: Refusal::TooMuch, message }
                if message.contains("in one step") =>
            {
                "--in-steps 100 applies it in several transactions"
            }
            _ => return self.remote.refuse(error),
        };
        self.remote.refuse_with(error, &format!("{remedy}\n"))
    }
}

fn by_id(routes: impl IntoIterator<Item = Route>) -> HashMap<String, Route> {
    routes.into_iter().map(|route| (route.id.clone(), route)).collect()
}

/// The differences as moves of a step.
fn moves(
    expected: &ApplyResponse,
    mut wanted: HashMap<String, Route>,
    mut stored: HashMap<String, Route>,
) -> Vec<Move> {
    let one = |difference: &Difference| Move {
        id: difference.id.clone(),
        kind: difference.kind(),
        route: wanted.remove(&difference.id),
        held: stored.remove(&difference.id).map(|route| route.hosts).unwrap_or_default(),
    };
    expected.differences.iter().map(one).collect()
}

/// Shows what changes: all of it, if nothing comes after that, else what people need to agree.
fn show(answer: &ApplyResponse, wanted: &HashMap<String, Route>, is_plan: bool, remote: &Remote) {
    let style = remote.voice.style;
    match (remote.voice.format, is_plan) {
        (Format::Json, true) => print(&format!("{}\n", json(answer, None))),
        (Format::Json, false) => {}
        (Format::Table, true) if answer.differences.is_empty() => {
            let unchanged = counted(answer.unchanged, "route");
            print(&format!("{}: {unchanged} unchanged\n", style.good("nothing to change")));
        }
        (Format::Table, _) => {
            print(&rows(answer, wanted, style));
            if is_plan {
                let words = Sum::of(answer).words(style);
                print(&format!("{}: {words}\n", style.strong("would be")));
            }
        }
    }
}

/// What must be agreed to, if anything: an empty file may be a slip as well.
fn question(sum: &Sum, removes_all: bool) -> Option<String> {
    let all = removes_all.then(|| format!("all {} removed", counted(sum.removed, "route")));
    let cut = counted(sum.cut_connections, "live connection");
    let cut = (sum.cut_connections > 0).then(|| format!("{cut} cut"));
    let parts: Vec<_> = all.into_iter().chain(cut).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Asks whoever sits at the terminal. Where nobody does, nothing is done.
fn agree(question: &str, remote: &Remote) -> bool {
    let style = remote.voice.complaints;
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        complain(&format!(
            "{}: {question}: nobody can be asked here; --yes agrees to that, --dry-run tells which\n",
            style.bad("refused")
        ));
        return false;
    }
    complain(&format!("{}: agreed? [y/N] ", style.bad(question)));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    let agrees = read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes");
    if !agrees {
        complain("nothing was changed\n");
    }
    agrees
}
