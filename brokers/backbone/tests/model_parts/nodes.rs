//! The nodes of the model: candidates, owners, and how they use the rules of the product.

use tidegate_backbone::Position;
use tidegate_backbone::slot::accept::{Link, Phase, Step};
use tidegate_backbone::slot::acknowledge::{Progress, Told, Window};
use tidegate_backbone::slot::frame::Generation;

use super::Bounds;
use super::world::{Action, Log, Mutation, Record, Rule, World};

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    Idle,
    Candidate { log: usize, rule: Rule, record: Record, unopened: Option<(u8, usize)> },
    Owner(Owner),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    log: usize,
    id: u64,
    epoch: u64,
    rule: Rule,
    window: Window,
    out: Vec<Record>,
    last_hash: u64,
    revision: u64,
    /// For the weakened rule: the end of the run of positions that were told.
    run: u64,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Serving,
    /// The next generation gets its snapshot, while commits go on.
    Building {
        next: usize,
        first: Record,
    },
    /// The Seal is out.
    Sealing {
        next: usize,
    },
    /// The generation is valid, and completed from what the sealed one stands for.
    Opening {
        commands: u8,
        old: usize,
    },
    Releasing,
}

impl Owner {
    fn send(&mut self, step: Step, commands: u8) -> Record {
        let link = Link {
            slot: 0,
            epoch: self.epoch,
            owner: self.id,
            sequence: self.window.send(),
            known: self.window.known(),
            previous_hash: self.last_hash,
            hash: 0,
            step,
        };
        let record = Record::new(link, commands);
        self.last_hash = record.link.hash;
        self.out.push(record.clone());
        record
    }

    fn needs_read_back(&self) -> bool {
        self.window.clone().progress() == Progress::ReadBack
    }
}

impl World {
    pub(crate) fn actions(&self, bounds: &Bounds, actions: &mut Vec<Action>) {
        // What is wrong stays wrong: nothing behind it needs to be looked at.
        if self.flaws != 0 {
            return;
        }
        let room = self.flights.len() < bounds.flights;
        for index in 0..self.flights.len() {
            actions.push(Action::Deliver(index));
            if self.faults < bounds.faults {
                actions.push(Action::Repeat(index));
                actions.push(Action::Lose(index));
            }
        }
        for (node, state) in self.nodes.iter().enumerate() {
            if room && self.announces < bounds.announces {
                actions.push(Action::Announce(node));
            }
            match state {
                Node::Idle => {}
                Node::Candidate { .. } => actions.push(Action::Read(node)),
                Node::Owner(owner) => {
                    if owner.needs_read_back() || matches!(owner.stage, Stage::Building { .. }) {
                        actions.push(Action::Read(node));
                    }
                    if !room {
                        continue;
                    }
                    // Not before every append has told something.
                    let waits =
                        |record: &Record| self.flights.iter().any(|(flight, _)| flight.hash == record.link.hash);
                    if owner.window.is_untold() && !owner.out.iter().any(waits) {
                        actions.push(Action::SendAgain(node));
                    }
                    let serving = matches!(owner.stage, Stage::Serving);
                    if serving || matches!(owner.stage, Stage::Building { .. }) {
                        actions.extend((0..bounds.commands).map(|command| Action::Commit(node, command)));
                    }
                    if serving && self.rolls < bounds.rolls {
                        actions.push(Action::Roll(node));
                    }
                    if matches!(owner.stage, Stage::Building { .. }) && owner.out.is_empty() {
                        actions.push(Action::Seal(node));
                    }
                    if serving && bounds.release && owner.out.is_empty() {
                        actions.push(Action::Release(node));
                    }
                }
            }
        }
    }

    pub(crate) fn step(&self, bounds: &Bounds, action: Action) -> Option<Self> {
        let mut world = self.clone();
        let changed = match action {
            Action::Announce(node) => world.announce(bounds, node),
            Action::Read(node) => world.read(bounds, node),
            Action::SendAgain(node) => world.send_again(bounds, node),
            Action::Commit(node, command) => world.commit(bounds, node, 1 << command),
            Action::Roll(node) => world.roll(bounds, node),
            Action::Seal(node) => world.seal(bounds, node),
            Action::Release(node) => world.release(bounds, node),
            Action::Deliver(index) => world.deliver(bounds, index, false),
            Action::Repeat(index) => world.deliver(bounds, index, true),
            Action::Lose(index) => world.lose(bounds, index),
        };
        if !changed || world == *self {
            return None;
        }
        world.judge(bounds.mutation);
        Some(world)
    }

    fn announce(&mut self, bounds: &Bounds, node: usize) -> bool {
        let Some(found) = self.find(bounds.mutation) else { return false };
        self.announces += 1;
        let (epoch, step) = found.rule.acceptor.announce();
        let link = Link {
            slot: 0,
            epoch,
            owner: u64::from(self.announces),
            sequence: 0,
            known: 0,
            previous_hash: found.rule.acceptor.last_hash(),
            hash: 0,
            step,
        };
        let record = Record::new(link, 0);
        self.fly(bounds, found.log, node, record.clone());
        self.nodes[node] = Node::Candidate { log: found.log, rule: found.rule, record, unopened: found.unopened };
        true
    }

    fn read(&mut self, bounds: &Bounds, node: usize) -> bool {
        match std::mem::replace(&mut self.nodes[node], Node::Idle) {
            Node::Idle => false,
            Node::Candidate { log, mut rule, record, unopened } => {
                if self.logs[log].deleted {
                    return true;
                }
                rule.read(bounds.mutation, &self.logs[log]);
                let Some(anchor) = rule.acceptor.read() else { return false };
                if rule.acceptor.owner() != Some(record.link.owner) {
                    return true;
                }
                let stage = match unopened {
                    Some((commands, old)) => Stage::Opening { commands, old },
                    None => Stage::Serving,
                };
                let mut owner = Owner {
                    log,
                    id: record.link.owner,
                    epoch: record.link.epoch,
                    window: Window::new(0, anchor),
                    out: Vec::new(),
                    last_hash: rule.acceptor.last_hash(),
                    revision: rule.acceptor.revision(),
                    run: anchor.0,
                    rule,
                    stage,
                };
                self.complete(bounds, node, &mut owner);
                self.nodes[node] = Node::Owner(owner);
                true
            }
            Node::Owner(mut owner) => {
                let kept = if owner.needs_read_back() { self.read_back(bounds, node, &mut owner) } else { true };
                if kept {
                    self.nodes[node] = Node::Owner(owner);
                }
                true
            }
        }
    }

    /// Gives whether the node is still the owner.
    fn read_back(&mut self, bounds: &Bounds, node: usize, owner: &mut Owner) -> bool {
        let log = self.logs[owner.log].clone();
        if log.deleted {
            return false;
        }
        let accepted: Vec<Record> = owner
            .rule
            .read(bounds.mutation, &log)
            .into_iter()
            .filter(|record| record.link.owner == owner.id)
            .cloned()
            .collect();
        let known = accepted.last().map_or_else(|| owner.window.known(), |record| record.link.sequence);
        owner.window.read_back(known, owner.rule.acceptor.read().unwrap_or_default());
        owner.run = owner.window.anchor().0;
        let superseded = owner.rule.acceptor.owner() != Some(owner.id);
        for record in accepted {
            if !self.landed(bounds, node, owner, &record) {
                return false;
            }
        }
        if superseded {
            return false;
        }
        self.fly_all(bounds, node, owner);
        true
    }

    fn send_again(&mut self, bounds: &Bounds, node: usize) -> bool {
        let Node::Owner(owner) = self.nodes[node].clone() else { return false };
        self.fly_all(bounds, node, &owner);
        true
    }

    fn fly_all(&mut self, bounds: &Bounds, node: usize, owner: &Owner) {
        for record in owner.out.clone() {
            self.fly(bounds, owner.log, node, record);
        }
    }

    fn commit(&mut self, bounds: &Bounds, node: usize, command: u8) -> bool {
        let Node::Owner(mut owner) = self.nodes[node].clone() else { return false };
        let known = owner.rule.commands | owner.out.iter().fold(0, |all, record| all | record.commands);
        if known & command != 0 || owner.out.len() >= 2 {
            return false;
        }
        owner.revision += 1;
        let record = owner.send(Step::Commit { revision: owner.revision, commits: 1 }, command);
        self.fly(bounds, owner.log, node, record);
        self.nodes[node] = Node::Owner(owner);
        true
    }

    fn roll(&mut self, bounds: &Bounds, node: usize) -> bool {
        let Node::Owner(mut owner) = self.nodes[node].clone() else { return false };
        self.rolls += 1;
        let next = self.logs.len();
        let generation = Generation { epoch: owner.epoch, suffix: next as u64 };
        self.logs.push(Log { generation, records: Vec::new(), deleted: false });
        let link = Link {
            slot: 0,
            epoch: owner.epoch,
            owner: owner.id,
            sequence: 0,
            known: 0,
            previous_hash: generation.genesis(0),
            hash: 0,
            step: Step::Snapshot,
        };
        let first = Record::new(link, owner.rule.commands);
        self.fly(bounds, next, node, first.clone());
        owner.stage = Stage::Building { next, first };
        self.nodes[node] = Node::Owner(owner);
        true
    }

    fn seal(&mut self, bounds: &Bounds, node: usize) -> bool {
        let Node::Owner(mut owner) = self.nodes[node].clone() else { return false };
        let Stage::Building { next, first } = owner.stage.clone() else { return false };
        let mut rule = Rule::new(self.logs[next].generation);
        if self.logs[next].deleted || rule.read(bounds.mutation, &self.logs[next]).is_empty() {
            // Sent again until it is there.
            self.fly(bounds, next, node, first);
            return true;
        }
        let step = Step::Seal { next: self.logs[next].generation };
        let record = owner.send(step, 0);
        self.fly(bounds, owner.log, node, record);
        owner.stage = Stage::Sealing { next };
        if bounds.mutation == Mutation::UnsealedIsValid {
            self.go_on(bounds, node, &mut owner, next);
        }
        self.nodes[node] = Node::Owner(owner);
        true
    }

    fn release(&mut self, bounds: &Bounds, node: usize) -> bool {
        let Node::Owner(mut owner) = self.nodes[node].clone() else { return false };
        let record = owner.send(Step::Release, 0);
        self.fly(bounds, owner.log, node, record);
        owner.stage = Stage::Releasing;
        self.nodes[node] = Node::Owner(owner);
        true
    }

    fn deliver(&mut self, bounds: &Bounds, index: usize, again: bool) -> bool {
        let (flight, record) = self.flights[index].clone();
        if again {
            self.faults += 1;
        } else {
            self.flights.remove(index);
        }
        if self.logs[flight.log].deleted {
            return !again;
        }
        self.logs[flight.log].records.push(record);
        let position = Position(self.logs[flight.log].records.len() as u64 - 1);
        self.tell(bounds, &flight, Told::At(position));
        true
    }

    fn lose(&mut self, bounds: &Bounds, index: usize) -> bool {
        self.faults += 1;
        let (flight, _) = self.flights.remove(index);
        self.tell(bounds, &flight, Told::Nothing);
        true
    }

    /// Tells an owner what became of its append, and lets it draw what follows.
    fn tell(&mut self, bounds: &Bounds, flight: &super::world::Flight, told: Told) {
        let Node::Owner(mut owner) = self.nodes[flight.node].clone() else { return };
        let waits = owner.out.iter().any(|record| record.link.hash == flight.hash);
        if owner.log != flight.log || !waits {
            return;
        }
        let loose = match (bounds.mutation, told) {
            (Mutation::UnbrokenRun, Told::At(position)) => {
                let unbroken = position.0 == owner.run + 1;
                owner.run = if unbroken { position.0 } else { owner.run };
                unbroken
            }
            (Mutation::NoPredecessor, Told::At(_)) => true,
            _ => false,
        };
        if loose {
            let record = owner.out.iter().find(|record| record.link.hash == flight.hash);
            self.acknowledged |= record.map_or(0, |record| record.commands);
        }
        owner.window.told(flight.sequence, told);
        while let Progress::Accepted { sequence, position } = owner.window.progress() {
            let Some(record) = owner.out.iter().find(|record| record.link.sequence == sequence).cloned() else { break };
            owner.rule.accept(bounds.mutation, &record, position.0 as usize);
            if !self.landed(bounds, flight.node, &mut owner, &record) {
                self.nodes[flight.node] = Node::Idle;
                return;
            }
        }
        self.nodes[flight.node] = Node::Owner(owner);
    }

    /// A frame of the owner's is known accepted. Gives whether it is still an owner.
    fn landed(&mut self, bounds: &Bounds, node: usize, owner: &mut Owner, record: &Record) -> bool {
        owner.out.retain(|other| other.link.hash != record.link.hash);
        match record.link.step {
            Step::Commit { .. } => {
                self.acknowledged |= record.commands;
                self.completed = true;
            }
            Step::Release => return false,
            Step::Seal { .. } => {
                if let Stage::Sealing { next } = owner.stage {
                    self.go_on(bounds, node, owner, next);
                }
            }
            Step::Snapshot | Step::Opened { .. } => self.complete(bounds, node, owner),
            Step::Announce { .. } | Step::Heartbeat => {}
        }
        true
    }

    /// The next generation is valid: the owner goes on there.
    fn go_on(&mut self, bounds: &Bounds, node: usize, owner: &mut Owner, next: usize) {
        let (commands, old) = (owner.rule.commands, owner.log);
        let mut rule = Rule::new(self.logs[next].generation);
        rule.read(bounds.mutation, &self.logs[next]);
        let anchor = rule.acceptor.read().unwrap_or_default();
        owner.log = next;
        owner.window = Window::new(rule.acceptor.last_sequence(), anchor);
        owner.last_hash = rule.acceptor.last_hash();
        owner.run = anchor.0;
        owner.out.clear();
        owner.rule = rule;
        owner.stage = Stage::Opening { commands, old };
        if bounds.mutation == Mutation::DeleteBeforeOpened {
            self.logs[old].deleted = true;
        }
        self.complete(bounds, node, owner);
    }

    /// Writes what the generation lacks, then Opened; deletes the one before when that is accepted.
    fn complete(&mut self, bounds: &Bounds, node: usize, owner: &mut Owner) {
        let Stage::Opening { commands, old } = owner.stage else { return };
        if !owner.out.is_empty() {
            return;
        }
        if owner.rule.acceptor.phase() == Phase::Open {
            self.logs[old].deleted = true;
            owner.revision = owner.rule.acceptor.revision();
            owner.stage = Stage::Serving;
            return;
        }
        let record = if owner.rule.commands == commands {
            owner.send(Step::Opened { revision: u64::from(commands.count_ones()), ordinal: old as u64 + 1 }, 0)
        } else {
            owner.send(Step::Snapshot, commands)
        };
        self.fly(bounds, owner.log, node, record);
    }
}
