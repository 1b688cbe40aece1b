//! A log that is read in pages, put together to what one read would have shown.
//!
//! Pages keep a long log from holding up Redis, the link and this node. Between two pages the log may grow, be trimmed or be
//! replaced. Values in, values out.

use crate::{
    bus::{Head, History},
    protocol::EntryId,
};

/// What has been read so far.
#[derive(Debug, Default)]
pub(super) struct Pages {
    read: Option<History>,
    /// The log's end when the first page was read. Reading stops here: a log may grow faster than it is read.
    goal: EntryId,
}

/// What a page brought.
#[derive(Debug)]
pub(super) enum Step {
    /// The next page begins after this entry.
    More(Pages, EntryId),
    /// All that was there when the reading began, and maybe some more.
    Whole(History),
}

impl Pages {
    /// Takes the next page: the entries after the last one that was read, oldest first, as many as fit; none where there
    /// are no more.
    pub(super) fn take(mut self, page: History) -> Step {
        let replaced = self.read.as_ref().is_none_or(|read| {
            let (was, is) = (&read.head, &page.head);
            was.lineage != is.lineage || was.top.epoch != is.top.epoch || is.top.seq < was.top.seq
        });
        if replaced {
            self.goal = page.head.top;
        }
        let head = page.head;
        let mut entries = match self.read.take() {
            Some(read) if !replaced && follows(&read, page.entries.first()) => read.entries,
            // What was read is of another log, or has a gap behind it: one read now would not show it.
            _ => Vec::new(),
        };
        let ended = page.entries.is_empty();
        entries.extend(page.entries);
        let last = entries.last().map(|(id, _)| *id);
        let unread = |last: &EntryId| !ended && *last < self.goal;
        if let Some(last) = last.filter(unread) {
            self.read = Some(History { head, entries });
            return Step::More(self, last);
        }
        // What came into the log after the last page was asked for is not in it.
        let top = last.filter(|last| !ended && last.epoch == head.top.epoch).unwrap_or(head.top);
        Step::Whole(History { head: Head { top, ..head }, entries })
    }
}

/// Whether a page goes on where the last one ended: nothing was trimmed in between.
fn follows<T>(read: &History, first: Option<&(EntryId, T)>) -> bool {
    match (read.entries.last(), first) {
        // A log with several epochs was written by hand, and has no order in which something could be missing.
        (Some((last, _)), Some((first, _))) => *first == last.next() || first.epoch != last.epoch,
        (_, None) => true,
        (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{EventError, Lineage};

    fn page(lineage: &str, epoch: u64, top: u64, seqs: impl IntoIterator<Item = u64>) -> History {
        let entry = |seq| (EntryId { epoch, seq }, Err(EventError::Json("not looked at".into())));
        let head = Head { lineage: Lineage::new(lineage), top: EntryId { epoch, seq: top } };
        History { head, entries: seqs.into_iter().map(entry).collect() }
    }

    fn more(step: Step) -> (Pages, u64) {
        match step {
            Step::More(pages, after) => (pages, after.seq),
            Step::Whole(history) => panic!("whole: {history:?}"),
        }
    }

    /// The end that is told, and the entries.
    fn whole(step: Step) -> (u64, Vec<u64>) {
        match step {
            Step::Whole(history) => {
                (history.head.top.seq, history.entries.iter().map(|(id, _)| id.seq).collect())
            }
            Step::More(_, after) => panic!("more after {after}"),
        }
    }

    #[test]
    fn pages_join() {
        assert_eq!(whole(Pages::default().take(page("a", 7, 0, []))), (0, vec![]));
        assert_eq!(whole(Pages::default().take(page("a", 7, 3, 2..=3))), (3, vec![2, 3]));
        let (pages, after) = more(Pages::default().take(page("a", 7, 6, 1..=3)));
        assert_eq!(after, 3);
        let (pages, after) = more(pages.take(page("a", 7, 6, 4..=5)));
        assert_eq!(after, 5);
        assert_eq!(whole(pages.take(page("a", 7, 6, [6]))), (6, (1..=6).collect()));
    }

    #[test]
    fn a_log_that_grows_faster_than_it_is_read_has_an_end() {
        let (pages, _) = more(Pages::default().take(page("a", 7, 4, 1..=2)));
        assert_eq!(whole(pages.take(page("a", 7, 90, 3..=5))), (5, vec![1, 2, 3, 4, 5]));
    }

    #[test]
    fn a_log_written_by_hand_is_read_to_its_end_whatever_its_numbers() {
        let entry = |epoch, seq| (EntryId { epoch, seq }, Err(EventError::Json("not looked at".into())));
        let by_hand = |ids: [(u64, u64); 2]| History {
            entries: ids.into_iter().map(|(epoch, seq)| entry(epoch, seq)).collect(),
            ..page("a", 9, 5, [])
        };
        let (pages, _) = more(Pages::default().take(by_hand([(7, 1), (7, 8)])));
        let (pages, _) = more(pages.take(by_hand([(8, 0), (9, 1)])));
        assert_eq!(whole(pages.take(by_hand([(9, 2), (9, 5)]))), (5, vec![1, 8, 0, 1, 2, 5]));
    }

    #[test]
    fn what_was_trimmed_between_two_pages_is_missing_as_in_one_read() {
        let (pages, _) = more(Pages::default().take(page("a", 7, 9, 1..=3)));
        let (pages, after) = more(pages.take(page("a", 7, 12, 6..=8)));
        assert_eq!(after, 8);
        assert_eq!(whole(pages.take(page("a", 7, 12, 9..=10))), (10, vec![6, 7, 8, 9, 10]));
        let (pages, _) = more(Pages::default().take(page("a", 7, 9, 1..=3)));
        assert_eq!(whole(pages.take(page("a", 7, 9, []))), (9, vec![1, 2, 3]), "all of the rest is gone");
    }

    #[test]
    fn a_log_that_is_replaced_between_two_pages_is_read_anew() {
        for (lineage, epoch, top) in [("b", 7, 9), ("a", 8, 3), ("a", 7, 2)] {
            let (pages, _) = more(Pages::default().take(page("a", 7, 9, 1..=3)));
            let step = pages.take(page(lineage, epoch, top, 1..=top));
            assert_eq!(whole(step), (top, (1..=top).collect()), "{lineage} {epoch} {top}");
        }
    }
}
