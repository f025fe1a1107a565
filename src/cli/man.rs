//! `man`: the manual pages, as the commands' own help tells them.

use std::path::PathBuf;

use super::Status;
use super::report::{Voice, complain, print};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Write a page for each command into this folder; without, the first one to standard output.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, commands: clap::Command, voice: Voice) -> Status {
    let Some(folder) = &arguments.dir else {
        let mut page = Vec::new();
        // Writing to memory does not fail.
        let _ = clap_mangen::Man::new(commands).render(&mut page);
        print(&String::from_utf8_lossy(&page));
        return Status::Done;
    };
    let written =
        std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(commands, folder));
    match written {
        Ok(()) => Status::Done,
        Err(error) => {
            let head = voice.complaints.bad("cannot write manual pages");
            complain(&format!("{head} to {}: {error}\n", folder.display()));
            Status::Refused
        }
    }
}
