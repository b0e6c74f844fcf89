//! The client of a masterless cluster: levels, writes in doubt, and sessions that see no less.

use super::fake::{FakeEnv, Reaction, command, run};
use super::*;

fn masterless(script: impl FnMut(&str, &RequestBody) -> Reaction + Send + 'static) -> FakeEnv {
    FakeEnv::new(script).masterless()
}

fn session(env: &FakeEnv) -> Client<FakeEnv> {
    let addresses = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
    let options = ClientOptions { session: true, ..ClientOptions::default() };
    Client::connect(env.clone(), addresses, options).with_level(Level::One)
}

fn stamp(ms: u64) -> Stamp {
    Stamp::new(ms, 0, NodeId(1))
}

fn written(ms: u64) -> Reaction {
    applied(stamp(ms).version())
}

fn cell_of(value: &'static str, ms: u64) -> Cell {
    let version = Version(stamp(ms).version());
    Cell { value: Value::new(value).unwrap_or_default(), version }
}

fn found(cell: Option<Cell>) -> Reaction {
    Reaction::Answer(ResponseBody::Query(QueryReply::Cell(cell)))
}

fn levels(env: &FakeEnv) -> Vec<Level> {
    env.consistencies().into_iter().map(|consistency| consistency.level).collect()
}

#[test]
fn level_travels_with_the_request_and_no_session_is_registered() {
    run(async {
        let env = masterless(|_, body| match command(body) {
            Some(Command::Write { .. }) => written(7),
            Some(Command::Register { .. } | Command::RegisterByIndex { .. }) => {
                unreachable!("nobody numbers writes")
            }
            None => found(None),
        });
        let client = client(&env);
        assert_eq!(client.mode().await, Ok(Mode::Masterless { placement: 1 }));
        client.set("k", "v").await.unwrap();
        client.with_level(Level::One).get("k").await.unwrap();
        client.get("k").await.unwrap();
        assert_eq!(levels(&env), [Level::Quorum, Level::One, Level::Quorum]);
    });
}

#[test]
fn write_carries_the_largest_stamp_that_was_seen() {
    run(async {
        let env = masterless(|_, body| match command(body) {
            Some(_) => written(30),
            None => found(Some(cell_of("v", 5))),
        });
        let client = client(&env);
        env.stamp(stamp(20));
        client.get("k").await.unwrap();
        env.stamp(stamp(10));
        client.get("k").await.unwrap();
        client.set("k", "v").await.unwrap();
        client.get("k").await.unwrap();
        let seen: Vec<Stamp> = env.consistencies().into_iter().map(|asked| asked.seen).collect();
        assert_eq!(seen, [Stamp::ZERO, stamp(20), stamp(20), stamp(30)]);
    });
}

#[test]
fn write_in_doubt_is_unknown_at_once_and_never_repeated() {
    let doubts: [fn() -> Reaction; 4] = [
        || Reaction::HangUp,
        || error(RequestError::Timeout),
        || error(RequestError::ShuttingDown),
        || Reaction::Garbage,
    ];
    for doubt in doubts {
        run(async {
            let env = masterless(move |_, _| doubt());
            let result = client(&env).set("k", "v").await;
            assert!(matches!(result, Err(ClientError::Unknown { .. })), "{result:?}");
            assert_eq!(env.asked().len(), 1, "a second try would be another write");
        });
    }
}

#[test]
fn write_without_an_answer_is_waited_for_and_unknown() {
    run(async {
        let env = masterless(|_, _| Reaction::Silence);
        let result = client(&env).set("k", "v").await;
        assert!(matches!(result, Err(ClientError::Unknown { .. })), "{result:?}");
        assert_eq!(env.asked(), ["a"]);
        assert_eq!(env.now().as_nanos(), 10_000_000_000, "as long as the caller has time");
    });
}

#[test]
fn write_that_surely_had_no_effect_is_tried_elsewhere() {
    let refusals = [
        RequestError::Unavailable { needed: 2, alive: 1 },
        RequestError::ClockSkew { ahead_ms: 9 },
        RequestError::Overloaded,
    ];
    for refusal in refusals {
        run(async {
            let mut count = 0;
            let refused = refusal.clone();
            let env = masterless(move |_, _| {
                count += 1;
                if count == 1 { error(refused.clone()) } else { written(7) }
            });
            let client = client(&env);
            assert_eq!(client.set("k", "v").await, Ok(Version(stamp(7).version())));
            assert_eq!(env.asked().len(), 2);
        });
    }
    run(async {
        let env = masterless(|_, _| written(7));
        env.down("a");
        client(&env).set("k", "v").await.unwrap();
        assert_eq!(env.asked(), ["b"], "what was never sent is in no doubt");
    });
}

#[test]
fn write_passes_over_nodes_that_are_not_ready_without_a_wait() {
    run(async {
        let env = masterless(|address, _| match address {
            "c" => written(7),
            _ => error(RequestError::NotReady),
        });
        let client = client(&env);
        assert_eq!(client.set("k", "v").await, Ok(Version(stamp(7).version())));
        assert_eq!(env.now().as_nanos(), 0, "the next node was asked at once");
        client.set("k", "v").await.unwrap();
        assert_eq!(env.asked(), ["a", "b", "c", "c"]);
    });
}

#[test]
fn write_that_no_node_is_ready_for_is_tried_with_waits_until_one_is_or_time_is_over() {
    run(async {
        let mut count = 0;
        let env = masterless(move |_, _| {
            count += 1;
            if count <= 7 { error(RequestError::NotReady) } else { written(7) }
        });
        assert_eq!(client(&env).set("k", "v").await, Ok(Version(stamp(7).version())));
        assert_eq!(env.asked(), ["a", "b", "c", "a", "b", "c", "a", "b"]);
        // After each round there was a wait: at least half of 5 ms, then half of 10.
        assert!(env.now().as_nanos() >= 7_500_000, "{:?}", env.now());
    });
    run(async {
        let env = masterless(|_, _| error(RequestError::NotReady));
        let error = client(&env).set("k", "v").await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotApplied);
        assert!(error.to_string().contains("not ready"), "{error}");
        assert!(env.now().as_nanos() > 9_000_000_000, "gave up at {:?}", env.now());
        assert!(env.asked().len() < 500, "asked {} times in 10 s", env.asked().len());
    });
}

#[test]
fn write_that_stays_unavailable_is_not_applied_and_says_why() {
    run(async {
        let env = masterless(|_, _| error(RequestError::Unavailable { needed: 2, alive: 1 }));
        let error = client(&env).set("k", "v").await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotApplied);
        assert!(error.to_string().contains("needs 2 replicas, and 1 are up"), "{error}");
    });
}

#[test]
fn read_is_asked_of_the_next_node_when_one_fails() {
    run(async {
        let env = masterless(|address, _| match address {
            "a" => Reaction::HangUp,
            "b" => error(RequestError::Timeout),
            _ => found(None),
        });
        let client = client(&env);
        assert_eq!(client.get("k").await, Ok(None));
        assert_eq!(client.get("k").await, Ok(None));
        assert_eq!(env.asked(), ["a", "b", "c", "c"], "and who answers is asked again");
    });
}

#[test]
fn conditional_write_is_refused_before_it_is_sent() {
    run(async {
        let env = masterless(|_, _| written(1));
        let client = client(&env);
        let result = client.compare_and_set("k", "", Expectation::Absent, None).await;
        assert!(matches!(result, Err(ClientError::Unsupported(_))), "{result:?}");
        assert!(env.asked().is_empty());
    });
}

/// A cluster whose replicas are behind at every level below `fresh_at`.
fn behind(fresh_at: Level, old: Option<Cell>, new: Option<Cell>) -> FakeEnv {
    let env = masterless(|_, _| Reaction::Silence);
    let asked = env.clone();
    env.script(move |_, body| {
        if command(body).is_some() {
            return written(10);
        }
        let is_fresh = [fresh_at, Level::All].contains(&asked.asked_level());
        found(if is_fresh { new.clone() } else { old.clone() })
    });
    env
}

#[test]
fn session_reads_its_own_write_from_more_replicas_when_the_first_is_behind() {
    for (fresh_at, asked) in [
        (Level::One, vec![Level::One]),
        (Level::Quorum, vec![Level::One, Level::Quorum]),
        (Level::All, vec![Level::One, Level::Quorum, Level::All]),
    ] {
        run(async {
            let new = cell_of("new", 10);
            let env = behind(fresh_at, Some(cell_of("old", 9)), Some(new.clone()));
            let client = session(&env);
            client.set("k", "new").await.unwrap();
            assert_eq!(client.get("k").await, Ok(Some(new)));
            assert_eq!(levels(&env).get(1..), Some(&asked[..]));
        });
    }
}

#[test]
fn session_that_asks_three_never_asks_fewer() {
    for (from, asked) in [
        (Level::Two, vec![Level::Two, Level::Quorum, Level::All]),
        (Level::Three, vec![Level::Three, Level::All]),
    ] {
        run(async {
            let new = cell_of("new", 10);
            let env = behind(Level::All, Some(cell_of("old", 9)), Some(new.clone()));
            let client = session(&env);
            client.set("k", "new").await.unwrap();
            assert_eq!(client.with_level(from).get("k").await, Ok(Some(new)));
            assert_eq!(levels(&env).get(1..), Some(&asked[..]));
        });
    }
}

#[test]
fn session_is_told_when_all_replicas_together_are_behind() {
    run(async {
        let old = cell_of("old", 9);
        let env = behind(Level::All, Some(old.clone()), Some(old));
        let client = session(&env);
        client.set("k", "new").await.unwrap();
        let result = client.get("k").await;
        assert!(matches!(result, Err(ClientError::Stale { .. })), "{result:?}");
        assert_eq!(client.get("another").await.map(|cell| cell.is_some()), Ok(true));
    });
}

#[test]
fn session_takes_a_missing_value_for_deleted_only_if_that_is_proved() {
    run(async {
        let env = behind(Level::All, None, None);
        let client = session(&env);
        client.set("k", "new").await.unwrap();
        assert_eq!(client.get("k").await, Ok(None), "all replicas say so");
        assert_eq!(levels(&env).get(1..), Some(&[Level::One, Level::Quorum, Level::All][..]));
        assert_eq!(client.get("k").await, Ok(None));
        assert_eq!(levels(&env).len(), 5, "which need not be proved again");
        env.stamp(stamp(11));
        client.set("m", "new").await.unwrap();
        assert_eq!(client.get("m").await, Ok(None), "there is a newer tombstone");
        assert_eq!(levels(&env).len(), 7);
    });
}

#[test]
fn session_that_has_seen_a_deletion_does_not_see_what_was_there_before() {
    run(async {
        let env = behind(Level::Quorum, Some(cell_of("old", 9)), None);
        let client = session(&env);
        client.delete("k").await.unwrap();
        client.delete_row("row").await.unwrap();
        for key in ["k", "row"] {
            assert_eq!(client.get(key).await, Ok(None));
        }
        let asked = [Level::One, Level::Quorum];
        assert_eq!(levels(&env).get(2..), Some(&[asked, asked].concat()[..]));
    });
}

#[test]
fn session_never_reads_older_than_it_has_read() {
    run(async {
        let mut versions = vec![cell_of("old", 4), cell_of("new", 5)].into_iter().cycle().skip(1);
        let env = masterless(move |_, _| found(versions.next()));
        let client = session(&env);
        for _ in 0..3 {
            let cell = client.get("k").await.unwrap();
            assert_eq!(cell, Some(cell_of("new", 5)));
        }
        assert_eq!(levels(&env).len(), 5, "twice an old answer was thrown away");
        let multi = client.multi_get(vec![(Key::default(), Column::default())]).await;
        assert!(multi.is_err(), "an answer of another kind is none");
    });
}

#[test]
fn client_without_a_session_takes_what_it_gets() {
    run(async {
        let env = behind(Level::All, Some(cell_of("old", 9)), None);
        let client = client(&env).with_level(Level::One);
        client.set("k", "new").await.unwrap();
        assert_eq!(client.get("k").await, Ok(Some(cell_of("old", 9))));
    });
}
