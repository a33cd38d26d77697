use super::*;

fn dead_letter(reason: &str, topic: Option<&str>, truncated: bool) -> DeadLetter {
    let ours = |name: &str, value: &str| (format!("retentiond.error.{name}"), Some(value.as_bytes().to_vec()));
    let mut headers = vec![("trace".to_owned(), None), ours("reason", reason), ours("partition", "3")];
    headers.extend(topic.map(|topic| ours("topic", topic)));
    headers.extend(truncated.then(|| ours("truncated", "true")));
    DeadLetter { headers, time: Some(1_000), ..DeadLetter::default() }
}

fn disposition(choice: &Choice, dead_letter: &DeadLetter) -> Disposition {
    choice.disposition("mine", &dead_letter.sender(), dead_letter.time, |topic| topic != "gone")
}

#[test]
fn chosen_dead_letters_are_replayed_and_all_others_stay() {
    let orders = dead_letter("invalid_json: expected value", Some("orders"), false);
    let found = orders.sender();
    assert_eq!(
        (found.reason.as_str(), found.topic.as_deref(), found.partition),
        ("invalid_json", Some("orders"), Some(3))
    );
    let choice = |change: fn(&mut Choice)| {
        let mut choice = Choice::default();
        change(&mut choice);
        choice
    };
    assert_eq!(disposition(&Choice::default(), &orders), Disposition::Back);
    for (is_chosen, change) in [
        (true, (|choice| choice.reasons = vec!["too_late".into(), "invalid_json".into()]) as fn(&mut Choice)),
        (false, |choice| choice.reasons = vec!["invalid".into()]),
        (true, |choice| choice.topics = vec!["orders".into()]),
        (false, |choice| choice.topics = vec!["sessions".into()]),
        (true, |choice| choice.since = Some(1_000)),
        (false, |choice| choice.since = Some(1_001)),
        (true, |choice| choice.until = Some(1_001)),
        (false, |choice| choice.until = Some(1_000)),
    ] {
        let choice = choice(change);
        assert_eq!(
            disposition(&choice, &orders),
            if is_chosen { Disposition::Back } else { Disposition::Stays },
            "{choice:?}"
        );
    }
    let timeless = DeadLetter { time: None, ..orders };
    assert_eq!(disposition(&choice(|choice| choice.since = Some(0)), &timeless), Disposition::Stays);
    assert_eq!(disposition(&Choice::default(), &dead_letter("too_late: x", Some("gone"), false)), Disposition::Stays);
}

#[test]
fn truncated_dead_letters_and_those_without_a_topic_are_never_replayed() {
    let none_of_it = Choice { reasons: vec!["another".into()], ..Choice::default() };
    for lost in [
        dead_letter("invalid_json: x", Some("orders"), true),
        dead_letter("invalid_json: x", None, false),
        DeadLetter::default(),
    ] {
        assert_eq!(
            (disposition(&Choice::default(), &lost), disposition(&none_of_it, &lost)),
            (Disposition::Lost, Disposition::Lost)
        );
    }
    let mut report = Report::default();
    report.note(&DeadLetter::default().sender(), Disposition::Lost, None);
    report.note(&dead_letter("a: b", Some("t"), false).sender(), Disposition::Back, Some(2));
    report.note(&dead_letter("a", Some("t"), false).sender(), Disposition::Stays, Some(1));
    let counts: Vec<_> = report.counts.into_iter().collect();
    assert_eq!(counts[0], (("a".into(), "t".into()), Count { back: 1, stay: 1, lost: 0, newest: Some(2) }));
    assert_eq!(counts[1].0, ("unknown".to_owned(), String::new()));
}

#[test]
fn each_group_replays_its_own_dead_letters_and_those_without_a_group() {
    let of = |group: Option<&str>| {
        let mut dead_letter = dead_letter("invalid_json: x", Some("orders"), false);
        dead_letter
            .headers
            .extend(group.map(|group| ("retentiond.error.group".to_owned(), Some(group.as_bytes().to_vec()))));
        dead_letter
    };
    let (own, foreign, old) = (of(Some("mine")), of(Some("theirs")), of(None));
    let fates = [&own, &foreign, &old].map(|dead_letter| disposition(&Choice::default(), dead_letter));
    assert_eq!(fates, [Disposition::Back, Disposition::Foreign, Disposition::Back]);
    let mut cut_off = foreign.clone();
    cut_off.headers.push(("retentiond.error.truncated".to_owned(), None));
    assert_eq!(disposition(&Choice::default(), &cut_off), Disposition::Foreign, "whatever became of it");
    let mut report = Report::default();
    for (dead_letter, disposition) in [&own, &foreign, &old].into_iter().zip(fates) {
        report.note(&dead_letter.sender(), disposition, dead_letter.time);
    }
    assert_eq!((report.back(), report.others, report.unnamed), (2, 1, 1));
}
