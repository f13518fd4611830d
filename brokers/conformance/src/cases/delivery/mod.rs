//! Delivery: a subscription is what the specification calls a group, and its consumers are the members.
//!
//! The specification's ids go to GRP-31; those from GRP-32 on are the project's own.

mod flow;
mod gate;
mod keys;
mod letters;
mod order;
mod restart;
mod slots;
mod start;

use super::table;
use crate::runner::Case;

pub(super) fn cases() -> Vec<Case> {
    table! {
        "GRP-01" "every subscription gets every event of its topics" [] flow::each_gets_all;
        "GRP-02" "consumers of one subscription share its events, each to one of them" [] flow::competing;
        "GRP-03" "as many deliveries are out at once as the subscription allows, no more and no fewer" [] flow::in_flight;
        "GRP-04" "what was settled does not come back after a restart" [Reopen] restart::settled_stays_settled;
        "GRP-05" "a delivery that is dropped comes again, first of its key and without counting" [] order::dropped;
        "GRP-07" "a retry comes when its time has come, and not before" [] order::not_before;
        "GRP-08" "an event that waits for a retry stops no other key" [] order::other_keys_go_on;
        "GRP-09" "an event that waits for a retry holds back its key until it is settled" [] order::key_waits;
        "GRP-10" "hundreds of keys that wait for a retry do not stall the others, and all come in order" [] order::many_delayed;
        "GRP-11" "attempts are counted, and the count survives a restart" [Reopen] restart::attempts;
        "GRP-12" "a dead letter says why, and is redriven to its subscription alone" [] letters::redrive;
        "GRP-13" "an event whose dead letter cannot be written stays until it can" [] letters::refused;
        "GRP-14" "dead letters can be listed in parts and dropped" [] letters::listed;
        "GRP-15" "without order a slow event holds back nothing of its key" [] order::without_order;
        "GRP-16" "after a crash nothing is lost, and what comes again was open or not yet written down" [Crash] restart::crash;
        "GRP-17" "the order of keys is kept through crashes amid deliveries" [Crash] restart::order_through_crashes;
        "GRP-19" "changing a subscription again and again under load leaves no gap and keeps order" [] flow::updates;
        "GRP-20" "retries that wait survive a change of the subscription, and of its order" [] order::retries_survive_changes;
        "GRP-21" "a subscription begins at the start, the end, a time or a position, and keeps to it" [Reopen] start::starts;
        "GRP-22" "a subscription that is deleted and created again is a new one" [] start::anew;
        "GRP-23" "a poisoned key costs one entry, whatever piles up behind it, and stops nothing" [] order::poisoned;
        "GRP-24" "after a restart exactly what was out comes again" [Reopen] restart::in_flight;
        "GRP-25" "events come again in the order of their key after a restart" [Reopen] restart::order;
        "GRP-26" "a slow subscription delays neither publishers nor others, and keeps to its memory" [] flow::slow;
        "GRP-27" "a topic that is created later is read from its start; one created again is new" [] start::later_topics;
        "GRP-29" "a graceful stop gives back what is out, and dead-letters none of it" [Reopen] restart::graceful;
        "GRP-32" "a paused subscription gets nothing, loses nothing, and stays paused over a restart" [Reopen] gate::paused;
        "GRP-33" "a sink out of reach costs no attempt, and is probed by one event at a time" [] gate::unreachable;
        "GRP-42" "a sink that fails everything is probed by one event after the other, and costs no attempt" [] gate::breaker;
        "GRP-43" "a few keys that always fail stop no other, however often they fail" [] gate::breaker_control;
        "GRP-44" "a key whose event is used up stands still over a restart until it is resumed; others go on" [Reopen] keys::paused;
        "GRP-45" "a paused key goes on behind its event, which is dead-lettered or dropped" [] keys::skipped;
        "GRP-46" "an event that is to be delivered later comes at its time, over a restart, and holds back nothing" [Reopen] keys::delayed;
        "GRP-47" "an event that has expired is dead-lettered and not counted, and a redrive delivers it" [] keys::expired;
        "GRP-48" "retries beyond their budget wait, and none is given up" [] keys::budget;
        "GRP-34" "catching up while events are published gives each event once and in order" [] start::catch_up;
        "GRP-35" "repeats are found over a restart and by a subscription that catches up" [Reopen] restart::duplicates;
        "GRP-36" "a dead-letter topic that comes with its first letter is delivered like any topic" [] letters::subscribed;
        "GRP-37" "deleting a topic ends what is read of it, and disturbs nothing else" [] start::deleted_topic;
        "GRP-38" "a subscription whose change cannot be written goes on as it was" [] flow::failed_update;
        "GRP-39" "a subscription that begins at the end, ahead of what is routed, gets nothing from before" [Reopen] start::ahead_of_the_router;
        "GRP-40" "a subscription that begins amid publishing misses nothing from its first event on" [] start::amid_publishing;
        "GRP-41" "a key whose waiting event was trimmed goes on with what is left of it" [] start::trimmed;
        "GRP-18" "a process that stands still while its slots are taken over settles nothing when it goes on" [Shared] slots::stands_still;
        "GRP-50" "partitions of several slots are delivered to several subscriptions, in the order of keys" [Reopen] slots::spread;
        "GRP-51" "slots that move between two processes under load lose nothing and keep the order of keys" [Shared] slots::moves;
        "GRP-52" "a subscription that another process creates, changes and removes does here what it says" [Shared] slots::elsewhere;
        "GRP-53" "what is out when a slot is given up comes again, and what was settled does not" [Shared] slots::handed_over;
        "GRP-54" "a topic that is created while another process deletes it keeps what is published to it" [Shared] slots::created_amid_deletion;
        "GRP-62" "what a topic holds, and how far a subscription is behind, is counted in events" [] flow::counted;
        "GRP-60" "dead letters are redriven at the rate that was asked for, over restarts" [Reopen] letters::redrive_rate;
        "GRP-61" "an edited letter is redriven in the place of the one it stands for, which stays as it was" [Reopen] letters::edited;
    }
}
