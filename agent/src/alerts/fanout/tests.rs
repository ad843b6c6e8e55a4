use super::*;

const MAX_QUEUED_BYTES: usize = 100_000;

#[derive(Debug, PartialEq, Eq)]
struct Text(String);

impl Item for Text {
    const MAX_QUEUED_BYTES: usize = MAX_QUEUED_BYTES;

    fn bytes(&self) -> usize {
        256 + self.0.len()
    }
}

fn alert(number: usize) -> Text {
    Text(format!("{number:07}"))
}

fn numbers(reader: &mut Subscription<Text>) -> (Vec<usize>, u64) {
    let (mut numbers, mut lost) = (Vec::new(), 0);
    while let Some(next) = reader.try_next() {
        match next {
            Next::Item(alert) => numbers.push(alert.0.parse().unwrap()),
            Next::Lost(count) => lost += count,
        }
    }
    (numbers, lost)
}

#[test]
fn everybody_gets_everything_and_what_waited_goes_to_the_first() {
    let fanout = Fanout::default();
    fanout.publish(alert(0));
    assert_eq!(fanout.counters(), Counters { items: 1, readers: 0, waiting: 1, lost: 0 });
    let (mut first, mut second) = (fanout.subscribe(), fanout.subscribe());
    fanout.publish(alert(1));
    assert_eq!(numbers(&mut first), (vec![0, 1], 0));
    assert_eq!(numbers(&mut second), (vec![1], 0));
}

#[test]
fn what_the_last_reader_leaves_waits_for_the_next() {
    let fanout = Fanout::default();
    let (first, second) = (fanout.subscribe(), fanout.subscribe());
    fanout.publish(alert(0));
    drop(first);
    assert_eq!(fanout.counters().waiting, 0, "the other has it");
    drop(second);
    fanout.publish(alert(1));
    assert_eq!(numbers(&mut fanout.subscribe()), (vec![0, 1], 0));
}

#[test]
fn what_is_taken_together_is_given_out_one_by_one_or_put_back() {
    let fanout = Fanout::default();
    let mut first = fanout.subscribe();
    (0..3 * TAKEN).for_each(|number| fanout.publish(alert(number)));
    assert_eq!(first.try_next(), Some(Next::Item(Arc::new(alert(0)))));
    fanout.publish(alert(3 * TAKEN));
    drop(first);
    let (rest, lost) = numbers(&mut fanout.subscribe());
    assert_eq!((rest, lost), ((1..=3 * TAKEN).collect(), 0));
}

#[test]
fn a_slow_reader_loses_the_oldest_and_is_told_how_many() {
    let fanout = Fanout::default();
    let (mut slow, mut fast) = (fanout.subscribe(), fanout.subscribe());
    let fit = MAX_QUEUED_BYTES / alert(0).bytes();
    for number in 0..fit + 10 {
        fanout.publish(alert(number));
        assert_eq!(numbers(&mut fast), (vec![number], 0));
    }
    assert_eq!(slow.try_next(), Some(Next::Lost(10)), "before the first that is left");
    let (left, lost) = numbers(&mut slow);
    assert_eq!((left.len(), left[0], left.last().copied(), lost), (fit, 10, Some(fit + 9), 0));
    assert_eq!(fanout.counters().lost, 10);
}

#[test]
fn nobody_listening_is_bounded_too() {
    let fanout = Fanout::default();
    for number in 0..3 {
        fanout.publish(Text("x".repeat(MAX_QUEUED_BYTES) + &number.to_string()));
    }
    let mut reader = fanout.subscribe();
    assert_eq!(reader.try_next(), Some(Next::Lost(2)));
    assert!(matches!(reader.try_next(), Some(Next::Item(alert)) if alert.0.ends_with('2')), "one always fits");
    assert_eq!(reader.try_next(), None);
}

#[test]
fn only_what_several_get_is_shared_and_takes_as_much() {
    #[derive(Debug, PartialEq, Eq)]
    struct Event(usize);

    impl Item for Event {
        const MAX_QUEUED_BYTES: usize = MAX_QUEUED_BYTES;

        fn bytes(&self) -> usize {
            self.0
        }

        fn share(&mut self) {
            self.0 *= 10;
        }
    }

    let fanout = Fanout::default();
    fanout.publish(Event(1000));
    let mut first = fanout.subscribe();
    fanout.publish(Event(1001));
    let mut second = fanout.subscribe();
    (0..12).for_each(|number| fanout.publish(Event(1000 + number)));
    let taken: Vec<_> = std::iter::from_fn(|| first.try_next()).collect();
    assert_eq!(taken[0], Next::Lost(5), "the first two, and three of those that are ten times as large");
    assert_eq!((taken.len(), &taken[1]), (10, &Next::Item(Arc::new(Event(10_030)))));
    drop(first);
    while second.try_next().is_some() {}
    fanout.publish(Event(7));
    assert_eq!(second.try_next(), Some(Next::Item(Arc::new(Event(7)))), "it is alone again");
}

#[tokio::test]
async fn a_reader_sleeps_until_there_is_something() {
    let fanout = Fanout::default();
    let mut reader = fanout.subscribe();
    let publisher = fanout.clone();
    let (next, ()) = tokio::join!(reader.next(), async move {
        tokio::task::yield_now().await;
        publisher.publish(alert(7));
    });
    assert!(matches!(next, Next::Item(alert) if alert.0 == "0000007"));
}

/// Whether a reader is woken now.
async fn is_woken(reader: &Subscription<Text>) -> bool {
    tokio::time::timeout(std::time::Duration::ZERO, reader.stirred()).await.is_ok()
}

#[tokio::test]
async fn who_may_hold_what_it_got_is_woken_once_more() {
    let fanout = Fanout::default();
    let reader = fanout.subscribe();
    fanout.queue(alert(1));
    assert!(!is_woken(&reader).await);
    for (again, expected) in [(true, true), (true, true), (false, true), (true, false)] {
        fanout.wake_again(again);
        assert_eq!(is_woken(&reader).await, expected);
    }
}
