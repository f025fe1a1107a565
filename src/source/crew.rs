//! Work that is spread over threads and comes back in order.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

/// Jobs that wait for each thread. With pieces of a text, a few hundred KB.
const WAITING: usize = 2;

/// Does every job that `supply` hands out, on this thread if `threads` is below 2, else on so many
/// others. Gives what came of them in their order.
///
/// # Errors
/// What `supply` fails with; whatever was done by then is lost.
pub(super) fn spread<J: Send, R: Send, E>(
    threads: usize,
    work: impl Fn(J) -> R + Sync,
    supply: impl FnOnce(&mut dyn FnMut(J)) -> Result<(), E>,
) -> Result<Vec<R>, E> {
    if threads < 2 {
        let mut done = Vec::new();
        supply(&mut |job| done.push(work(job)))?;
        return Ok(done);
    }
    let mut done = thread::scope(|scope| {
        let (jobs, queue) = mpsc::sync_channel(threads * WAITING);
        let queue = Arc::new(Mutex::new(queue));
        let hire = |_| {
            let (queue, work) = (Arc::clone(&queue), &work);
            let builder = thread::Builder::new().name("routes".to_owned());
            builder.spawn_scoped(scope, move || each(&queue, work)).ok()
        };
        let hands: Vec<_> = (0..threads).map_while(hire).collect();
        // From now on the threads alone hold it: when none of them is left, nobody waits for them.
        drop(queue);
        let (mut count, mut done) = (0_usize, Vec::new());
        let supplied = supply(&mut |job| {
            count += 1;
            match jobs.send((count, job)) {
                Ok(()) => {}
                // No thread could be had, or all have failed, which is told below.
                Err(mpsc::SendError((number, job))) => done.push((number, work(job))),
            }
        });
        drop(jobs);
        for hand in hands {
            match hand.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        supplied.map(|()| done)
    })?;
    done.sort_unstable_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

type Queue<J> = Arc<Mutex<mpsc::Receiver<(usize, J)>>>;

/// Does jobs until there are no more.
fn each<J, R>(queue: &Queue<J>, work: &impl Fn(J) -> R) -> Vec<(usize, R)> {
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
    std::iter::from_fn(next).map(|(number, job)| (number, work(job))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squares(threads: usize, count: usize) -> Result<Vec<usize>, &'static str> {
        spread(
            threads,
            |job: usize| job * job,
            |hand_out| {
                (0..count).for_each(hand_out);
                if count == 13 { Err("thirteen") } else { Ok(()) }
            },
        )
    }

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        let expected: Vec<usize> = (0..500).map(|job| job * job).collect();
        for threads in 0..5 {
            assert_eq!(squares(threads, 500).as_ref(), Ok(&expected));
            assert_eq!(squares(threads, 0), Ok(vec![]));
            assert_eq!(squares(threads, 13), Err("thirteen"));
        }
    }

    #[test]
    fn a_failing_job_is_neither_lost_nor_waited_for() {
        for threads in 1..4 {
            let work = |job: usize| assert!(job < 3, "job {job}");
            let done = std::panic::catch_unwind(|| {
                spread(threads, work, |hand_out| {
                    (0..100).for_each(hand_out);
                    Ok::<(), ()>(())
                })
            });
            assert!(done.is_err());
        }
    }
}
