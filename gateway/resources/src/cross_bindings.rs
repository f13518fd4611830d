//! What holds between bindings and the resources that name them or are named by them.

use std::collections::HashMap;

use tidegate_schemas::limits;

use super::binding::{Binding, Direction, Output, Sites, Source};
use super::config::{self, BackboneUrl};
use super::cross::{fault, undeclared};
use super::diagnostic::Diagnostic;
use super::document::{Collected, Mention};

/// Everything that is wrong.
pub(super) fn check(collected: &Collected, diagnostics: &mut Vec<Diagnostic>) {
    if let Some((binding, _)) = collected.bindings.get(limits::BINDINGS) {
        let (count, most) = (collected.bindings.len(), limits::BINDINGS);
        let what = format!("there are {count} bindings, and at most {most} are taken");
        diagnostics.push(fault(&binding.origin.file, binding.origin.place, what, "remove what nothing uses"));
    }
    // What a request sends goes to a gateway that has its bindings from files.
    if collected.texts_only {
        return;
    }
    let mut readers = HashMap::new();
    for (binding, sites) in &collected.bindings {
        check_broker(collected, binding, sites, diagnostics);
        check_only_reader(&mut readers, binding, sites, diagnostics);
    }
    for (subscription, sites) in &collected.subscriptions {
        let Some(name) = &sites.sink_binding else { continue };
        let of = format!("the subscription `{}` has the binding `{name}` as its sink", subscription.name);
        let declare = "declare it: `kind: Binding` with its `broker` and an `output`";
        let (what, mend) = if let Some(mend) = undeclared(collected, "Binding", name, declare) {
            (format!("{of}, which is not declared"), mend)
        } else if let Some((binding, _)) = collected.bindings.iter().find(|(binding, _)| binding.name == *name)
            && let Direction::Input(input) = &binding.direction
        {
            let topic = &input.topic;
            (format!("{of}, which is an input"), format!("name an output; what comes in is in the topic `{topic}`"))
        } else {
            continue;
        };
        diagnostics.push(fault(&subscription.origin.file, sites.sink, what, &mend));
    }
}

fn check_broker(collected: &Collected, binding: &Binding, sites: &Sites, diagnostics: &mut Vec<Diagnostic>) {
    let of = format!("the binding `{}` is on the broker `{}`", binding.name, binding.broker);
    let declare = "declare it: `kind: Broker` with its `url`";
    let (what, mend) = if let Some(mend) = undeclared(collected, "Broker", &binding.broker, declare) {
        (format!("{of}, which is not declared"), mend)
    } else if let Some(broker) = collected.brokers.iter().find(|broker| broker.name == binding.broker)
        && !has_queues(&broker.settings.url)
    {
        let mend = "name one whose URL begins with amqp:// or amqps://; topics of others are attached (`kind: Topic`)";
        (format!("{of}, which has no queues"), mend.to_owned())
    } else {
        return;
    };
    diagnostics.push(fault(&binding.origin.file, sites.broker, what, &mend));
}

fn has_queues(url: &BackboneUrl) -> bool {
    url.broker() == Some(config::Broker::Rabbitmq)
}

/// Two that take messages from one queue would each get some of them, and no order would be left.
fn check_only_reader<'c>(
    readers: &mut HashMap<(&'c str, &'c str), &'c Binding>,
    binding: &'c Binding,
    sites: &Sites,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let Direction::Input(input) = &binding.direction else { return };
    let (Source::Queue(queue), Some(place)) = (&input.from, sites.queue) else { return };
    let first = readers.entry((&binding.broker, queue)).or_insert(binding);
    if first.name != binding.name {
        let what = format!(
            "the bindings `{}` and `{}` take messages from the same queue `{queue}` of `{}`, so that each gets some",
            first.name, binding.name, binding.broker
        );
        let mend = "remove one; several subscriptions may read its topic";
        diagnostics.push(fault(&binding.origin.file, place, what, mend));
    }
}

/// Of each subscription the topic that its events come back to through a queue that a binding puts them into and another one
/// takes them from. Which way an exchange leads nobody knows here.
pub(super) fn through_queues(collected: &Collected) -> Vec<Option<&Mention>> {
    let through = |name: &str| {
        let (out, _) = collected.bindings.iter().find(|(binding, _)| binding.name == name)?;
        let Direction::Output(Output::Queue(queue)) = &out.direction else { return None };
        let takes = |binding: &Binding| match &binding.direction {
            Direction::Input(input) => binding.broker == out.broker && input.from == Source::Queue(queue.clone()),
            Direction::Output(_) => false,
        };
        collected.bindings.iter().find(|(binding, _)| takes(binding))?.1.topic.as_ref()
    };
    let of = |sites: &super::subscription::Sites| sites.sink_binding.as_deref().and_then(through);
    collected.subscriptions.iter().map(|(_, sites)| of(sites)).collect()
}
