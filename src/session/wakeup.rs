//! What the task of a session waits for while its outbox writes to a plain socket by itself: the same for every transport.

use std::task::{Context, Poll, ready};

use crate::hub::{Notice, Outbox};

/// What the task was woken for.
pub(super) enum Wakeup {
    Notice(Notice),
    Writable,
    Readable,
}

/// Waits for the next reason to wake. While the client does not read, nothing of it is read either; `may_read` is asked behind
/// the notices, whose waker is then in place: an answer of the relay that comes meanwhile is not slept through.
pub(super) fn poll_wakeup(
    outbox: &Outbox,
    may_read: impl FnOnce(&Outbox) -> bool,
    cx: &mut Context<'_>,
) -> Poll<Wakeup> {
    if let Poll::Ready(notice) = outbox.poll_notice(cx) {
        return Poll::Ready(Wakeup::Notice(notice));
    }
    let Some(socket) = outbox.socket() else { return Poll::Ready(Wakeup::Notice(Notice::Broken)) };
    // Errors show when the socket is used.
    if outbox.is_blocked() {
        let _ = ready!(socket.poll_write_ready(cx));
        return Poll::Ready(Wakeup::Writable);
    }
    if !may_read(outbox) {
        return Poll::Pending;
    }
    let _ = ready!(socket.poll_read_ready(cx));
    Poll::Ready(Wakeup::Readable)
}
