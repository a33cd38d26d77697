//! A queue of items by due time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::event::Time;

/// Items by due time; items due at the same time keep their insertion order.
///
/// Items due at [`Time::MAX`] are dropped, so that a shop that runs that long ends there.
#[derive(Debug, Clone)]
pub(super) struct Queue<T> {
    heap: BinaryHeap<Entry<T>>,
    next_ticket: u64,
}

#[derive(Debug, Clone)]
struct Entry<T> {
    at: Time,
    ticket: u64,
    item: T,
}

impl<T> Queue<T> {
    pub fn new() -> Queue<T> {
        Queue { heap: BinaryHeap::new(), next_ticket: 0 }
    }

    /// Adds an item and returns its ticket.
    pub fn push(&mut self, at: Time, item: T) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if at < Time::MAX {
            self.heap.push(Entry { at, ticket, item });
        }
        ticket
    }

    /// When the first item is due.
    pub fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// Removes the first item: its time, its ticket and the item.
    pub fn pop(&mut self) -> Option<(Time, u64, T)> {
        self.heap.pop().map(|entry| (entry.at, entry.ticket, entry.item))
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.heap.len()
    }
}

impl<T> Ord for Entry<T> {
    /// Reversed, because the heap yields the greatest entry first.
    fn cmp(&self, other: &Entry<T>) -> Ordering {
        (other.at, other.ticket).cmp(&(self.at, self.ticket))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Entry<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Entry<T>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_first_and_equals_in_order_of_arrival() {
        let mut queue = Queue::new();
        for (at, item) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')] {
            queue.push(Time::clamped(at), item);
        }
        queue.push(Time::MAX, 'z');
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, _, item)| item).collect();
        assert_eq!(order, "abcd");
    }
}
