//! The group member of a process. As in librdkafka, heartbeats and joins run independently of the poll thread.

use std::collections::BTreeSet;

use retentiond::bus::Partition;
use retentiond::checkpoint::protocol::Event;

use crate::broker::{Membership, Reply, Request};
use crate::replica::{Note, Purpose, Replica};
use crate::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Joining,
    Stable,
    /// Rejoins once these are released.
    GivingUp,
}

pub struct Client {
    instance: Option<usize>,
    eager: bool,
    member: Option<u64>,
    generation: i32,
    /// Partitions assigned and not yet given back.
    holds: BTreeSet<i32>,
    giving_up: BTreeSet<i32>,
    mode: Mode,
}

impl Client {
    pub fn new(instance: Option<usize>, eager: bool) -> Client {
        Client {
            instance,
            eager,
            member: None,
            generation: 0,
            holds: BTreeSet::new(),
            giving_up: BTreeSet::new(),
            mode: Mode::Joining,
        }
    }

    /// The membership to send with a transaction; `None` if not a member.
    pub fn membership(&self) -> Option<Membership> {
        let member = self.member.filter(|_| self.generation > 0)?;
        Some(Membership { member, generation: self.generation, instance: self.instance })
    }
}

fn partitions(of: &BTreeSet<i32>) -> Vec<Partition> {
    of.iter().copied().map(Partition).collect()
}

impl Replica {
    pub fn join(&mut self, world: &mut World) {
        self.client.mode = Mode::Joining;
        let (member, instance) = (self.client.member, self.client.instance);
        let holds = self.client.holds.clone();
        self.call(world, Request::Join { member, instance, holds }, Purpose::Join);
    }

    pub fn joined(&mut self, world: &mut World, reply: Reply) {
        match reply {
            Reply::Joined { member, generation, partitions: given } => {
                let client = &mut self.client;
                (client.member, client.generation, client.mode) = (Some(member), generation, Mode::Stable);
                let added: BTreeSet<i32> = given.difference(&client.holds).copied().collect();
                let taken: BTreeSet<i32> = client.holds.difference(&given).copied().collect();
                client.holds.extend(&added);
                if !taken.is_empty() {
                    client.mode = Mode::GivingUp;
                    client.giving_up.clone_from(&taken);
                    self.tell(world, Event::Revoked(partitions(&taken)));
                }
                if !added.is_empty() && !self.ended {
                    self.tell(world, Event::Assigned(partitions(&added)));
                }
            }
            Reply::UnknownMember => self.membership_lost(world),
            Reply::Fenced => self.instance_fenced(world),
            _ => self.join(world),
        }
    }

    pub fn heartbeat(&mut self, world: &mut World) {
        self.note(world, 300, Note::Heartbeat);
        if self.client.mode != Mode::Joining
            && let Some(membership) = self.client.membership()
        {
            self.call(world, Request::Heartbeat(membership), Purpose::Heartbeat);
        }
    }

    pub fn heard(&mut self, world: &mut World, reply: Reply) {
        if self.client.mode == Mode::Joining {
            return;
        }
        match reply {
            Reply::Rebalance if self.client.mode == Mode::Stable => {
                let client = &mut self.client;
                if client.eager && !client.holds.is_empty() {
                    client.mode = Mode::GivingUp;
                    client.giving_up.clone_from(&client.holds);
                    let taken = partitions(&client.holds);
                    self.tell(world, Event::Revoked(taken));
                } else {
                    self.join(world);
                }
            }
            Reply::UnknownMember => self.membership_lost(world),
            Reply::Fenced => self.instance_fenced(world),
            _ => {}
        }
    }

    fn instance_fenced(&mut self, world: &mut World) {
        self.fenced = true;
        self.tell(world, Event::Fenced);
    }

    fn membership_lost(&mut self, world: &mut World) {
        world.stats.lost += 1;
        let client = &mut self.client;
        (client.member, client.generation) = (None, 0);
        let lost = partitions(&client.holds);
        client.giving_up.clone_from(&client.holds);
        client.mode = Mode::GivingUp;
        if lost.is_empty() {
            self.join(world);
        } else {
            self.tell(world, Event::Lost(lost));
        }
    }

    /// Gives released partitions back to the group.
    pub fn release(&mut self, world: &mut World, released: &[Partition]) {
        for partition in released {
            self.client.holds.remove(&partition.0);
            self.client.giving_up.remove(&partition.0);
        }
        if self.client.mode == Mode::GivingUp && self.client.giving_up.is_empty() {
            self.join(world);
        }
    }

    /// A static member does not leave the group, so that its successor can take its place.
    pub fn leave(&mut self, world: &mut World) {
        if self.client.instance.is_none()
            && let Some(membership) = self.client.membership()
        {
            self.call(world, Request::Leave(membership), Purpose::Heartbeat);
        }
    }
}
