//! What holds between resources: names that cannot stand beside each other, and subscriptions that feed each other.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use tidegate_routing::TopicName;
use tidegate_schemas::limits;

use super::cross_bindings;
use super::diagnostic::{Diagnostic, Place, Severity};
use super::document::{Collected, Mention};
use super::nearest::nearest;
use super::subscription::{Sites, Subscription};

/// Everything that is wrong between the resources that were read.
pub(super) fn check(collected: &Collected) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    check_collisions(collected, &mut diagnostics);
    for (subscription, sites) in &collected.subscriptions {
        check_own_dead_letters(subscription, sites, &mut diagnostics);
    }
    check_brokers(collected, &mut diagnostics);
    cross_bindings::check(collected, &mut diagnostics);
    let through = cross_bindings::through_queues(collected);
    check_cycles(&collected.subscriptions, &through, &Places::of(collected), &mut diagnostics);
    diagnostics
}

pub(super) fn fault(file: &Arc<str>, place: Place, what: String, mend: &str) -> Diagnostic {
    Diagnostic { severity: Severity::Error, file: Arc::clone(file), place: Some(place), what, mend: mend.to_owned() }
}

/// Names that differ only in `.` and `_`, wherever a topic is named.
fn check_collisions(collected: &Collected, diagnostics: &mut Vec<Diagnostic>) {
    let of_topics = collected.topics.iter().map(|(topic, sites)| (&topic.origin.file, &sites.name));
    let of_subscriptions = collected.subscriptions.iter().flat_map(|(subscription, sites)| {
        let mentions = sites.literals.iter().chain(sites.targets()).chain([&sites.dead_letter_topic]);
        mentions.map(|mention| (&subscription.origin.file, mention))
    });
    let of_bindings =
        collected.bindings.iter().filter_map(|(binding, sites)| Some((&binding.origin.file, sites.topic.as_ref()?)));
    let mut firsts: BTreeMap<String, (&Arc<str>, &Mention)> = BTreeMap::new();
    for (file, mention) in of_topics.chain(of_subscriptions).chain(of_bindings) {
        let (first_file, first) = firsts.entry(mention.topic.collision_key().into_owned()).or_insert((file, mention));
        if first.topic.collides_with(&mention.topic) {
            let what = format!(
                "the topic `{}` differs only in `.` and `_` from `{}` at {first_file}:{}",
                mention.written, first.written, first.place
            );
            diagnostics.push(fault(file, mention.place, what, "rename one: not every broker can hold both"));
        }
    }
}

/// Brokers that topics are attached on, and how many there are.
fn check_brokers(collected: &Collected, diagnostics: &mut Vec<Diagnostic>) {
    if let Some(broker) = collected.brokers.get(limits::BROKERS) {
        let what =
            format!("there are {} brokers, and at most {} are reached", collected.brokers.len(), limits::BROKERS);
        diagnostics.push(fault(&broker.origin.file, broker.origin.place, what, "remove what no topic is attached on"));
    }
    // What a request sends goes to a gateway that has its brokers from files.
    if collected.texts_only {
        return;
    }
    for (topic, sites) in &collected.topics {
        let Some((name, place)) = &sites.broker else { continue };
        if collected.brokers.iter().any(|broker| broker.name == *name && broker.settings.url.broker().is_none()) {
            let what = format!(
                "the topic `{}` is attached on the broker `{name}`, which is an embedded log and belongs to one process",
                topic.name
            );
            let mend = "attach it on a broker that others reach; an embedded log is declared to migrate to it";
            diagnostics.push(fault(&topic.origin.file, *place, what, mend));
            continue;
        }
        if let Some(mend) = undeclared(collected, "Broker", name, "declare it: `kind: Broker` with its `url`") {
            let what = format!("the topic `{}` is attached on the broker `{name}`, which is not declared", topic.name);
            diagnostics.push(fault(&topic.origin.file, *place, what, &mend));
        }
    }
}

/// How to mend that a resource is named which is not declared; none where it is. One that is declared with faults is told of
/// already.
pub(super) fn undeclared(collected: &Collected, kind: &'static str, name: &str, declare: &str) -> Option<String> {
    if collected.names.contains_key(&(kind, name.to_owned())) {
        return None;
    }
    // Those with faults among them.
    let mut known: Vec<&str> =
        collected.names.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.as_str()).collect();
    known.sort_unstable();
    Some(match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => declare.to_owned(),
    })
}

/// Which names stand for the same topic of a broker.
struct Places<'c>(Vec<Vec<&'c TopicName>>);

impl<'c> Places<'c> {
    fn of(collected: &'c Collected) -> Self {
        let mut places: HashMap<(Option<&str>, &str), Vec<&TopicName>> = HashMap::new();
        for (topic, _) in &collected.topics {
            let Some(attach) = &topic.attach else { continue };
            places.entry((attach.broker.as_deref(), &attach.name)).or_default().push(&topic.name);
        }
        Self(places.into_values().filter(|names| names.len() > 1).collect())
    }

    /// A topic with all names that it has.
    fn names<'t>(&'t self, topic: &'t TopicName) -> impl Iterator<Item = &'t TopicName> {
        let others = self.0.iter().find(|names| names.contains(&topic)).into_iter().flatten().copied();
        std::iter::once(topic).chain(others.filter(move |name| *name != topic))
    }
}

/// A subscription that reads what it could not deliver would deliver it again, for ever.
fn check_own_dead_letters(subscription: &Subscription, sites: &Sites, diagnostics: &mut Vec<Diagnostic>) {
    let dead = &sites.dead_letter_topic;
    if let Some(own) = sites.literals.iter().find(|literal| literal.topic == dead.topic) {
        let what =
            format!("the subscription `{}` reads its own dead-letter topic `{}`", subscription.name, own.written);
        diagnostics.push(fault(
            &subscription.origin.file,
            own.place,
            what,
            "redrive dead letters instead, or give `delivery.deadLetterTopic` another name",
        ));
    }
    if let Some(sink) = sites.sink_topic.as_ref().filter(|sink| sink.topic == dead.topic) {
        let what = format!("the subscription `{}` has its dead-letter topic as its sink", subscription.name);
        diagnostics.push(fault(&subscription.origin.file, sink.place, what, "send its events to another topic"));
    }
}

/// Subscriptions whose sinks are topics that lead back to them. Filters are not looked at: one that ends a cycle today
/// does not when an event changes.
/// `through` are the topics that the events of a subscription come back to through a queue, one for each at most.
fn check_cycles(
    subscriptions: &[(Subscription, Sites)],
    through: &[Option<&Mention>],
    places: &Places<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let dead_letters: HashSet<&TopicName> =
        subscriptions.iter().map(|(subscription, _)| &subscription.delivery.dead_letter_topic).collect();
    let readers_of = |topic: &TopicName| -> Vec<usize> {
        let reads_one = |subscription: &Subscription, topic: &TopicName| {
            let mut patterns = subscription.topics.iter();
            patterns
                .any(|pattern| pattern.matches(topic) && (pattern.literal().is_some() || !dead_letters.contains(topic)))
        };
        let reads = |subscription: &Subscription| places.names(topic).any(|name| reads_one(subscription, name));
        (0..subscriptions.len()).filter(|index| reads(&subscriptions[*index].0)).collect()
    };
    // Many subscriptions may share a sink, so its readers are looked for once.
    let mut readers: HashMap<&TopicName, Rc<[usize]>> = HashMap::new();
    let mut next: Vec<Rc<[usize]>> = Vec::with_capacity(subscriptions.len());
    // One whose sink is a binding has no topic as its sink, so that there are two at most.
    let targets = |index: usize| subscriptions[index].1.targets().chain(through[index]);
    for index in 0..subscriptions.len() {
        let mut of_targets = targets(index)
            .map(|target| Rc::clone(readers.entry(&target.topic).or_insert_with(|| readers_of(&target.topic).into())));
        next.push(match (of_targets.next(), of_targets.next()) {
            (None, _) => Rc::from([]),
            (Some(one), None) => one,
            (Some(one), Some(two)) => one.iter().chain(two.iter()).copied().collect(),
        });
    }
    let mut told = HashSet::new();
    for start in 0..subscriptions.len() {
        if told.contains(&start) {
            continue;
        }
        let Some(cycle) = shortest_cycle(start, &next) else { continue };
        told.extend(cycle.iter().copied());
        let mut way = String::new();
        for (place, index) in cycle.iter().enumerate() {
            let (subscription, _) = &subscriptions[*index];
            let follower = cycle[(place + 1) % cycle.len()];
            let leads = |target: &&Mention| readers.get(&target.topic).is_some_and(|read| read.contains(&follower));
            let topic = targets(*index).find(leads).map_or("", |target| target.written.as_str());
            way.push_str(&format!("`{}` to {topic} to ", subscription.name));
        }
        let (subscription, sites) = &subscriptions[start];
        let what = format!("subscriptions feed each other: {way}`{}`", subscription.name);
        diagnostics.push(fault(
            &subscription.origin.file,
            sites.sink,
            what,
            "send one of them to a topic that none of them reads",
        ));
    }
}

/// The shortest way from a subscription back to itself, without its end.
fn shortest_cycle(start: usize, next: &[Rc<[usize]>]) -> Option<Vec<usize>> {
    let mut came_from: Vec<Option<usize>> = vec![None; next.len()];
    let mut queue = VecDeque::from([start]);
    while let Some(index) = queue.pop_front() {
        for follower in next[index].iter() {
            if *follower == start {
                let mut cycle = vec![index];
                while let Some(before) = cycle.last().and_then(|last| came_from[*last]) {
                    cycle.push(before);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if came_from[*follower].is_none() {
                came_from[*follower] = Some(index);
                queue.push_back(*follower);
            }
        }
    }
    None
}
