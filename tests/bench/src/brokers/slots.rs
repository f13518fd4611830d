//! What a slot's commits cost beside the appends that carry them.

use std::sync::Arc;

use bytes::Bytes;
use tidegate::compose::Opened;
use tidegate_backbone::slot::{Command, Expect, SlotHandle};
use tidegate_backbone::{Environment, Record};

use super::bare;
use super::{OnBroker, Operation, own_slots, rate};
use crate::Failure;
use crate::figures::{Figures, print_table};
use crate::process::wait_for_quiet;

/// The value that a commit puts; with what a frame of one commit has around it about as many bytes as the bare record.
const VALUE_BYTES: usize = 100;
const RECORD_BYTES: usize = 200;
/// Keys that are written in turn.
const KEYS: u64 = 1_000;

pub(super) async fn run(arguments: &OnBroker, opened: Opened, environment: Environment) -> Result<(), Failure> {
    let journals = own_slots(&opened, &environment).await?;
    let bare = bare::open(&arguments.backbone, &opened, "slots").await?;
    let slot = Arc::new(journals[journals.len() - 1].clone()) as Arc<dyn SlotHandle>;
    let contenders = [
        ("appends of the client library", bare.append(Record::Frame(vec![b'x'; RECORD_BYTES].into()))),
        ("commits of one slot", commit(slot)),
        ("appends of the client library, again", bare.append(Record::Frame(vec![b'x'; RECORD_BYTES].into()))),
    ];
    let mut figures = vec![Figures::default(); contenders.len()];
    for _ in 0..arguments.rounds {
        for ((_, operation), figures) in contenders.iter().zip(&mut figures) {
            wait_for_quiet(&arguments.common);
            figures.push(rate(arguments.depth, arguments.seconds, operation).await?);
        }
    }
    let rows: Vec<Vec<String>> =
        contenders.iter().zip(&figures).map(|((name, _), figures)| vec![(*name).to_owned(), figures.text(0)]).collect();
    print_table(&[&format!("{} in flight", arguments.depth), "a second"], &rows);
    print_table(
        &["of the same round", "ratio"],
        &[
            vec!["**commits / appends**".to_owned(), format!("**{}**", figures[1].ratio(&figures[0]).text(2))],
            vec!["control: appends again / appends".to_owned(), figures[2].ratio(&figures[0]).text(2)],
        ],
    );
    Ok(())
}

/// Puts one key after the other.
pub(super) fn commit(slot: Arc<dyn SlotHandle>) -> Operation {
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    Arc::new(move |number| {
        let command = Command::new().put(format!("bench/{}", number % KEYS), Expect::Any, value.clone());
        let slot = Arc::clone(&slot);
        Box::pin(async move {
            slot.commit(command).await?;
            Ok(())
        })
    })
}
