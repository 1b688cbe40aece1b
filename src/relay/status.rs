//! What sessions are told of the node's sight of Redis: `live:true` only where everything they follow is in step; and which
//! sources are late.

use super::{feeds::Feeds, link::Link, marks::LiveMarks, sources::LateSources};
use crate::{
    hub::{Hub, MemberId, RoomId, Standing},
    mutant,
    protocol::{NodeMessage, Subject, time},
};

/// Whether a member lacks nothing: all that it follows is in step, no live events of it are withheld, and it is owed nothing.
pub(super) fn is_complete(member: MemberId, hub: &Hub, feeds: &Feeds, marks: &LiveMarks) -> bool {
    hub.standings(member).into_iter().all(|(room, standing)| {
        let owed = matches!(standing, Standing::Owed(_)) && !mutant::is("live-owed");
        standing != Standing::Waiting && !owed && feeds.is_live(room) && !is_withheld(room, hub, marks)
    })
}

/// Whether live events of something that a member follows are withheld.
pub(super) fn lacks_live(member: MemberId, hub: &Hub, marks: &LiveMarks) -> bool {
    marks.withholds_any() && hub.standings(member).into_iter().any(|(room, _)| is_withheld(room, hub, marks))
}

fn is_withheld(room: RoomId, hub: &Hub, marks: &LiveMarks) -> bool {
    !mutant::is("withheld")
        && marks.withholds_any()
        && hub.subject(room).map(Subject::area).is_some_and(|area| marks.withholds(area))
}

/// Tells a member `live`, unless that is what it was told last.
pub(super) fn tell(id: MemberId, live: bool, hub: &mut Hub, link: &Link, sources: &LateSources) {
    let since = link.told_since();
    if let Some(member) = hub.member_mut(id).filter(|member| member.welcomed && member.live != live) {
        member.live = live;
        member.outbox.message(NodeMessage::Status {
            live,
            since: time::rfc3339(since),
            late: sources.told(),
        });
    }
}

/// Tells everyone that Redis is out of sight.
pub(super) fn tell_all_away(hub: &mut Hub, link: &Link, sources: &LateSources) {
    for member in hub.members().map(|(id, _)| id).collect::<Vec<_>>() {
        tell(member, false, hub, link, sources);
    }
}

/// Tells `live:true` to all who lack nothing and were not told so. The others are told when they lack nothing.
pub(super) fn tell_complete(
    hub: &mut Hub,
    feeds: &Feeds,
    marks: &LiveMarks,
    link: &Link,
    sources: &LateSources,
) {
    let untold = hub.members().filter(|(_, member)| member.welcomed && !member.live);
    for member in untold.map(|(id, _)| id).collect::<Vec<_>>() {
        if is_complete(member, hub, feeds, marks) {
            tell(member, true, hub, link, sources);
        }
    }
}

/// Tells those who follow one of these that they lack something that cannot be had for now.
pub(super) fn tell_followers_away(
    rooms: impl IntoIterator<Item = RoomId>,
    hub: &mut Hub,
    link: &Link,
    sources: &LateSources,
) {
    for room in rooms {
        for member in hub.followers(room) {
            tell(member, false, hub, link, sources);
        }
    }
}

/// Tells everyone which sources are late now.
pub(super) fn tell_late(hub: &Hub, link: &Link, sources: &LateSources) {
    let (since, late) = (time::rfc3339(link.since()), sources.late());
    for (_, member) in hub.members().filter(|(_, member)| member.welcomed) {
        let (live, since) = (member.live, since.clone());
        member.outbox.message(NodeMessage::Status { live, since, late: Some(late.clone()) });
    }
}
