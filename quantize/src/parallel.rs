//! Work on pieces of a tensor's rows with every core, handed back one at a time.

use crate::{Error, Progress, Result};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

/// Values of a piece: large enough to hide the bookkeeping, small enough that a few fit in the cache and in memory.
const PIECE_VALUES: usize = 1 << 20;

/// Calls `work` on ranges that cover the rows of a `[rows][cols]` tensor, on several threads, and `take` on this one
/// with each result, in no particular order. The first number is the place of the piece.
///
/// *Errors*: of the pieces that failed the first, whatever the order in which they ran.
pub(crate) fn for_rows<T: Send>(
    [rows, cols]: [usize; 2],
    progress: &dyn Progress,
    work: impl Fn(Range<usize>) -> Result<T> + Sync,
    mut take: impl FnMut(usize, Range<usize>, T),
) -> Result<()> {
    let step = (PIECE_VALUES / cols.max(1)).max(1);
    let pieces = rows.div_ceil(step);
    let range = |i: usize| i * step..((i + 1) * step).min(rows);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(pieces);
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut failed: Option<(usize, Error)> = None;
    let mut done = |i: usize, result: Result<T>| match result {
        Ok(value) => {
            progress.advance((range(i).len() * cols) as u64);
            take(i, range(i), value);
        }
        Err(e) => {
            stop.store(true, Ordering::Relaxed);
            if failed.as_ref().is_none_or(|(first, _)| i < *first) {
                failed = Some((i, e));
            }
        }
    };
    let one = |i: usize| if progress.interrupted() { Err(Error::Interrupted) } else { work(range(i)) };
    if threads < 2 {
        for i in 0..pieces {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            done(i, one(i));
        }
    } else {
        std::thread::scope(|scope| {
            let (send, receive) = mpsc::sync_channel(threads);
            for _ in 0..threads {
                let (send, next, stop, one) = (send.clone(), &next, &stop, &one);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        if i >= pieces || send.send((i, one(i))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(send);
            for (i, result) in receive {
                done(i, result);
            }
        });
    }
    failed.map_or(Ok(()), |(_, e)| Err(e))
}

/// Calls `work` on pieces of `piece` values, the last one perhaps shorter, on several threads, from the last to the first.
pub(crate) fn for_chunks<T: Send>(data: &mut [T], piece: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let mut pieces: Vec<_> = data.chunks_mut(piece.max(1)).enumerate().collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(pieces.len());
    if threads < 2 {
        pieces.into_iter().for_each(|(i, piece)| work(i, piece));
        return;
    }
    let left = Mutex::new(&mut pieces);
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((i, piece)) = next() {
                    work(i, piece);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Quiet;

    #[test]
    fn every_row_is_worked_on_once() {
        let mut seen = vec![0; 1000];
        for_rows([1000, 1 << 17], &Quiet, Ok, |i, range, same| {
            assert_eq!(range, same);
            assert_eq!(range.start, i * 8);
            range.for_each(|r| seen[r] += 1);
        })
        .unwrap();
        assert!(seen.iter().all(|n| *n == 1));
    }

    #[test]
    fn every_chunk_is_worked_on_once() {
        let mut data = vec![0; 1003];
        for_chunks(&mut data, 10, |i, piece| piece.iter_mut().for_each(|v| *v += i + 1));
        assert!(data.iter().enumerate().all(|(k, v)| *v == k / 10 + 1));
    }

    #[test]
    fn the_first_failure_is_reported() {
        for _ in 0..20 {
            let fail = |r: Range<usize>| if r.start >= 16 { Err(Error::Usage(format!("{}", r.start))) } else { Ok(()) };
            let error = for_rows([1000, 1 << 17], &Quiet, fail, |_, _, ()| {}).unwrap_err();
            assert_eq!(error.to_string(), "16");
        }
    }
}
