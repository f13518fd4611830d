//! The cases, by what they look at.

mod claim;
mod cluster;
mod delivery;
mod faulted;
mod faulted_journal;
mod journal;
mod misbehaving;
mod publish;
mod request;
mod retention;
mod tail;

use crate::runner::Case;

macro_rules! table {
    ($($id:literal $title:literal [$($need:ident),*] $run:path;)*) => {
        vec![$(Case {
            id: $id,
            title: $title,
            needs: &[$(crate::fixture::Need::$need),*],
            run: |fixture| Box::pin($run(fixture)),
        }),*]
    };
}
pub(crate) use table;

/// Every case.
pub fn cases() -> Vec<Case> {
    [
        publish::cases(),
        tail::cases(),
        delivery::cases(),
        retention::cases(),
        request::cases(),
        journal::cases(),
        misbehaving::cases(),
        claim::cases(),
        faulted::cases(),
        faulted_journal::cases(),
        cluster::cases(),
    ]
    .concat()
}
