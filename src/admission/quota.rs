//! Whether a project has a seat left on a kind of hardware.

use crate::admission::evidence::Registered;
use crate::admission::refusal::Refusal;
use crate::clock::Timestamp;
use crate::registry::hardware::Seats;
use crate::registry::names::{AppName, HardwareName, ProjectName};

/// What keeps an app from a seat, if anything.
pub(super) fn judge(
    registered: &Registered,
    project: &ProjectName,
    name: &AppName,
    kind: &HardwareName,
    now: Timestamp,
) -> Option<Refusal> {
    let known = registered.seats.iter().find(|seats| seats.kind == *kind);
    // Of the free kind every project has one, without any record of it.
    let seats = known.cloned().unwrap_or_else(|| Seats::none(project.clone(), kind.clone()));
    if seats.booked == 0 {
        let booked = registered.seats.iter().filter(|seats| seats.booked > 0);
        let mut booked: Vec<_> = booked.map(|seats| seats.kind.clone()).collect();
        if !booked.iter().any(HardwareName::is_free) {
            booked.push(HardwareName::free());
        }
        return Some(Refusal::NotBooked { kind: kind.clone(), booked });
    }
    let others = seats.sitting(now).filter(|(other, _)| *other != name);
    let by: Vec<AppName> = others.map(|(other, _)| other.clone()).collect();
    let is_full = usize::try_from(seats.booked).is_ok_and(|booked| by.len() >= booked);
    is_full.then(|| Refusal::InUse { kind: kind.clone(), booked: seats.booked, by })
}
