use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn alert(partition: i32, offset: i64, key: &str) -> Alert {
    Alert {
        partition,
        offset,
        key: Some(key.as_bytes().to_vec()),
        payload: format!("{{\"id\":\"{partition}/{offset}\"}}").into_bytes(),
        headers: Vec::new(),
        time: Some(1_000 + offset),
    }
}

fn answered(status: u16) -> Outcome {
    Outcome::Answered { status, retry_after: None }
}

fn offset(task: &Task) -> i64 {
    match task {
        Task::Post(alert) | Task::DeadLetter(alert, _) => alert.offset,
    }
}

#[test]
fn a_delayed_alert_blocks_only_its_own_customer_and_the_position() {
    let now = Instant::now();
    let mut queue = Queue::default();
    queue.begin(0, 10);
    for (offset, key) in [(10, "a"), (11, "a"), (12, "b")] {
        queue.add(alert(0, offset, key));
    }
    let (a, first) = queue.next(now).unwrap();
    let (b, second) = queue.next(now).unwrap();
    assert_eq!((offset(&first), offset(&second), queue.next(now)), (10, 12, None));
    assert_eq!((queue.in_flight(), queue.len(), queue.oldest()), (2, 3, Some(1_010)));
    assert!(matches!(queue.attempted(a, &answered(500), now, 1.0), Some(Action::Retry { asked: false, .. })));
    assert_eq!(queue.attempted(b, &answered(200), now, 1.0), Some(Action::Delivered));
    assert_eq!((queue.next(now), queue.uncommitted()), (None, vec![]));

    let later = queue.wake_at().unwrap();
    assert_eq!(later, now + Duration::from_secs(1));
    let (a, again) = queue.next(later).unwrap();
    assert_eq!(offset(&again), 10);
    queue.attempted(a, &answered(204), later, 1.0);
    // The alert that was delivered ahead is now covered by the position.
    assert_eq!(queue.uncommitted(), [(0, 11)]);
    let (a, last) = queue.next(later).unwrap();
    assert_eq!(offset(&last), 11);
    queue.attempted(a, &answered(200), later, 1.0);
    assert_eq!(queue.uncommitted(), [(0, 13)]);
    queue.committed(&[(0, 13)]);
    queue.advance(0, 15);
    assert_eq!((queue.uncommitted(), queue.is_empty(), queue.bytes()), (vec![(0, 15)], true, 0));
    queue.committed(&[(0, 15)]);
    queue.forget_commits();
    assert_eq!(queue.uncommitted(), [(0, 15)]);
}

#[test]
fn a_requested_pause_applies_to_all_alerts() {
    let now = Instant::now();
    let mut queue = Queue::default();
    queue.begin(0, 0);
    queue.add(alert(0, 0, "a"));
    queue.add(alert(0, 1, "b"));
    let (a, _) = queue.next(now).unwrap();
    let busy = Outcome::Answered { status: 429, retry_after: Some(Duration::from_secs(30)) };
    queue.attempted(a, &busy, now, 0.0);
    let until = now + Duration::from_secs(30);
    assert_eq!(
        (queue.next(now), queue.next(until - Duration::from_millis(1)), queue.wake_at()),
        (None, None, Some(until))
    );
    assert!(queue.next(until).is_some() && queue.next(until).is_some());
}

#[test]
fn an_alert_that_is_given_up_is_done_once_it_is_a_dead_letter() {
    let now = Instant::now();
    let mut queue = Queue::default();
    queue.begin(0, 0);
    queue.add(alert(0, 0, "a"));
    queue.add(alert(0, 1, "a"));
    for _ in 0..3 {
        let (a, _) = queue.next(now).unwrap();
        queue.attempted(a, &answered(404), now, 0.0);
    }
    let (a, task) = queue.next(now).unwrap();
    assert!(matches!(&task, Task::DeadLetter(alert, why) if alert.offset == 0 && why.contains("404")), "{task:?}");
    let again = now + Duration::from_secs(5);
    assert!(!queue.dead_lettered(a, Some(again)));
    assert_eq!((queue.next(now), queue.uncommitted()), (None, vec![]));
    let (a, task) = queue.next(again).unwrap();
    assert!(matches!(task, Task::DeadLetter(..)));
    assert!(queue.dead_lettered(a, None));
    assert_eq!(queue.uncommitted(), [(0, 1)]);
    assert!(matches!(queue.next(again), Some((_, Task::Post(alert))) if alert.offset == 1));
}

#[test]
fn results_of_a_former_assignment_do_not_count() {
    let now = Instant::now();
    let mut queue = Queue::default();
    queue.begin(0, 0);
    queue.add(alert(0, 0, "a"));
    queue.add(alert(0, 1, "b"));
    let (a, _) = queue.next(now).unwrap();
    queue.release(0);
    assert_eq!((queue.len(), queue.bytes(), queue.uncommitted()), (0, 0, vec![]));
    queue.begin(0, 0);
    queue.add(alert(0, 0, "a"));
    assert_eq!(queue.next(now), None, "two attempts at one alert at a time");
    assert_eq!(queue.attempted(a, &answered(200), now, 0.0), None);
    assert_eq!(queue.uncommitted(), []);
    let (a, _) = queue.next(now).unwrap();
    queue.attempted(a, &answered(200), now, 0.0);
    assert_eq!(queue.uncommitted(), [(0, 1)]);
    // Records of a partition that is not assigned, and duplicates.
    queue.add(alert(7, 0, "a"));
    queue.add(alert(0, 0, "a"));
    assert_eq!(queue.len(), 0);
}

#[test]
fn the_id_of_an_alert_is_its_event_id_or_else_its_position() {
    let id = |payload: &str| Alert { payload: payload.as_bytes().to_vec(), ..alert(3, 14, "a") }.id();
    assert_eq!(id(r#"{"specversion":"1.0","id":"5f0c"}"#), "5f0c");
    for other in [r#"{"id":7}"#, r#"{"id":""}"#, r#"{"id":"a\nb"}"#, "", "[]"] {
        assert_eq!(id(other), "3-14", "{other}");
    }
}

proptest! {
    /// Whatever the endpoint answers, every alert is delivered or dead-lettered once, in order per customer, and no
    /// position passes an alert that is neither.
    #[test]
    fn nothing_is_lost_repeated_or_overtaken(
        keys in prop::collection::vec(0..4_u8, 1..40),
        answers in prop::collection::vec((prop_oneof![Just(200_u16), Just(500), Just(404), Just(429)], 0.0..1.0_f64), 600),
        at_once in 1..5_usize,
    ) {
        let mut now = Instant::now();
        let mut queue = Queue::default();
        queue.begin(0, 0);
        for (offset, key) in (0..).zip(&keys) {
            queue.add(alert(0, offset, &key.to_string()));
        }
        let (mut done, mut out) = (BTreeSet::new(), VecDeque::new());
        let mut last_of = HashMap::new();
        for (status, draw) in answers {
            while out.len() < at_once {
                match queue.next(now) {
                    Some(next) => out.push_back(next),
                    None => break,
                }
            }
            let Some((turn, task)) = out.pop_front() else {
                now = queue.wake_at().unwrap_or(now);
                continue;
            };
            let at = offset(&task);
            let finished = match task {
                Task::Post(_) => queue.attempted(turn, &answered(status), now, draw) == Some(Action::Delivered),
                Task::DeadLetter(..) => queue.dead_lettered(turn, (status == 500).then_some(now)),
            };
            if finished {
                prop_assert!(done.insert(at), "{} twice", at);
                let before = last_of.insert(keys[at as usize], at);
                prop_assert!(before.is_none_or(|before| before < at));
            }
            let position = queue.uncommitted().first().map_or(0, |(_, next)| *next);
            prop_assert!((0..position).all(|before| done.contains(&before)), "{} passed over", position);
        }
        // Alerts that are not done are still queued.
        prop_assert_eq!(queue.len() + done.len(), keys.len());
    }
}
