//! The promises of the client against nodes that misbehave on purpose.

mod fake;
mod masterless;

use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::*;

use self::fake::{FakeEnv, Reaction, command, run};
use super::retry::{Kind, Tries};
use super::*;
use crate::base::{ClusterId, Instant, NodeId, SessionId};
use crate::wire::{Outcome, Refusal, RequestError};

fn client(env: &FakeEnv) -> Client<FakeEnv> {
    let addresses = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
    Client::connect(env.clone(), addresses, ClientOptions::default())
}

fn applied(version: u64) -> Reaction {
    Reaction::Answer(ResponseBody::Command(CommandReply::Applied(Version(version))))
}

fn command_reply(reply: CommandReply) -> Reaction {
    Reaction::Answer(ResponseBody::Command(reply))
}

fn error(error: RequestError) -> Reaction {
    Reaction::Answer(ResponseBody::Error(error))
}

fn not_leader(hint: Option<&str>) -> Reaction {
    error(RequestError::NotLeader { leader: hint.map(|hint| (NodeId(9), hint.to_owned())) })
}

/// Sets a cell that there is not. Were there one, it would come with the answer.
async fn create(client: &Client<FakeEnv>, key: &'static str) -> Result<CasResult, ClientError> {
    client.compare_and_set(key, "", Expectation::Absent, Value::new("v").ok()).await
}

fn no_cell() -> ResponseBody {
    ResponseBody::Query(QueryReply::Cell(None))
}

/// A script that registers sessions (numbered from 1), and leaves the rest to `write`, which is
/// told the how-manieth write it gets, counted from 0.
fn with_sessions(
    mut write: impl FnMut(&str, usize) -> Reaction + Send + 'static,
) -> impl FnMut(&str, &RequestBody) -> Reaction + Send + 'static {
    let (mut session_count, mut write_count) = (0, 0);
    move |address, body| match command(body) {
        Some(Command::Register { .. } | Command::RegisterByIndex { .. }) => {
            session_count += 1;
            command_reply(CommandReply::Registered(SessionId(session_count)))
        }
        Some(Command::Write { .. }) => {
            write_count += 1;
            write(address, write_count - 1)
        }
        None => Reaction::Answer(no_cell()),
    }
}

#[test]
fn hints_are_followed_to_the_leader_and_remembered() {
    run(async {
        let env = FakeEnv::new(|address, _| match address {
            "a" => not_leader(Some("c")),
            "c" => not_leader(Some("d")),
            "d" => Reaction::Answer(no_cell()),
            other => unreachable!("{other} was asked"),
        });
        let client = client(&env);
        assert_eq!(client.get("k").await, Ok(None));
        assert_eq!(client.get("k").await, Ok(None));
        assert_eq!(env.asked(), ["a", "c", "d", "d"]);
        assert!(env.now().as_nanos() == 0, "hints are followed without a wait");
    });
}

#[test]
fn hint_that_leads_nowhere_makes_the_next_node_be_asked() {
    run(async {
        let env = FakeEnv::new(|address, _| match address {
            "a" => not_leader(Some("x")),
            "b" => Reaction::Answer(no_cell()),
            other => unreachable!("{other} was asked"),
        });
        env.down("x");
        let client = client(&env);
        assert_eq!(client.get("k").await, Ok(None));
        assert_eq!(client.get("k").await, Ok(None));
        assert_eq!(env.asked(), ["a", "b", "b"]);
    });
}

#[test]
fn node_is_asked_once_who_leads() {
    run(async {
        let env = FakeEnv::new(|address, _| match address {
            "a" => not_leader(Some("d")),
            "b" => not_leader(None),
            "d" => Reaction::Answer(no_cell()),
            _ => error(RequestError::NotReady),
        });
        let client = client(&env);
        assert_eq!(client.leader_known_at("a").await, Ok(Some("d".to_owned())));
        assert_eq!(client.leader_known_at("b").await, Ok(None), "nobody leads");
        assert_eq!(client.leader_known_at("d").await, Ok(Some("d".to_owned())), "it leads itself");
        let unknown = client.leader_known_at("c").await;
        assert!(matches!(unknown, Err(ClientError::Unavailable { .. })), "{unknown:?}");
        assert_eq!(env.asked(), ["a", "b", "d", "c"], "nobody else is");
    });
}

#[test]
fn nodes_that_point_at_each_other_do_not_spin() {
    run(async {
        let env = FakeEnv::new(|address, _| match address {
            "a" => not_leader(Some("b")),
            _ => not_leader(Some("a")),
        });
        let result = client(&env).get("k").await;
        assert!(matches!(result, Err(ClientError::Unavailable { .. })), "{result:?}");
        assert!(env.asked().len() < 500, "asked {} times in 10 s", env.asked().len());
    });
}

#[test]
fn write_whose_connection_is_lost_is_retried_with_its_number() {
    run(async {
        let env = FakeEnv::new(with_sessions(|_, count| match count {
            0 => applied(1),
            1 => Reaction::HangUp,
            _ => applied(5),
        }));
        let client = client(&env);
        assert_eq!(client.set("k", "1").await, Ok(Version(1)));
        assert_eq!(client.set("k", "2").await, Ok(Version(5)));
        assert_eq!(env.writes(), [(1, 1, 1), (1, 2, 2), (1, 2, 2)]);
    });
}

#[test]
fn write_never_answered_is_unknown_after_the_deadline() {
    run(async {
        let env = FakeEnv::new(with_sessions(|_, _| Reaction::Silence));
        let result = client(&env).set("k", "v").await;
        assert!(matches!(result, Err(ClientError::Unknown { .. })), "{result:?}");
        let now = env.now();
        assert!(now.as_nanos() <= 10_100_000_000, "gave up only at {now:?}");
        assert!(env.writes().len() >= 4, "tried elsewhere after each try's limit");
        assert!(env.writes().iter().all(|write| *write == (1, 1, 1)), "{:?}", env.writes());
    });
}

#[test]
fn refusal_of_a_retry_does_not_settle_an_earlier_try() {
    let refusals = [
        RequestError::NotLeader { leader: None },
        RequestError::NotReady,
        RequestError::Overloaded,
        RequestError::DiskFull,
        RequestError::Invalid("no".to_owned()),
        RequestError::Unsupported("no".to_owned()),
    ];
    for refusal in refusals {
        let first = [Some(RequestError::LeadershipLost), Some(RequestError::Timeout), None];
        for first in first {
            run(async {
                let refusal = refusal.clone();
                let env = FakeEnv::new(with_sessions(move |_, count| match (count, &first) {
                    (0, Some(first)) => error(first.clone()),
                    (0, None) => Reaction::HangUp,
                    _ => error(refusal.clone()),
                }));
                let result = client(&env).set("k", "v").await;
                assert!(matches!(result, Err(ClientError::Unknown { .. })), "{result:?}");
            });
        }
    }
}

#[test]
fn write_refused_by_everyone_is_not_applied() {
    let refusals = [
        (RequestError::NotLeader { leader: None }, "no node took"),
        (RequestError::NotReady, "no node took"),
        (RequestError::Overloaded, "overloaded"),
        (RequestError::DiskFull, "disk"),
        (RequestError::Invalid("no".to_owned()), "not valid"),
        (RequestError::Unsupported("no".to_owned()), "not supported"),
    ];
    for (refusal, said) in refusals {
        run(async {
            let env = FakeEnv::new(with_sessions(move |_, _| error(refusal.clone())));
            let error = client(&env).set("k", "v").await.unwrap_err();
            assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
            assert!(error.to_string().contains(said), "{error}");
        });
    }
}

#[test]
fn overloaded_leader_is_asked_again() {
    run(async {
        let env = FakeEnv::new(with_sessions(|address, count| {
            assert_eq!(address, "a", "the leader is still the leader");
            if count < 3 { error(RequestError::Overloaded) } else { applied(1) }
        }));
        assert_eq!(client(&env).set("k", "v").await, Ok(Version(1)));
    });
}

#[test]
fn session_expired_before_any_effect_is_registered_anew() {
    run(async {
        let env = FakeEnv::new(with_sessions(|_, count| match count {
            0 => command_reply(CommandReply::SessionExpired),
            _ => applied(9),
        }));
        assert_eq!(client(&env).set("k", "v").await, Ok(Version(9)));
        assert_eq!(env.writes(), [(1, 1, 1), (2, 1, 1)]);
    });
}

#[test]
fn session_expired_after_a_try_in_doubt_is_unknown() {
    run(async {
        let env = FakeEnv::new(with_sessions(|_, count| match count {
            0 => Reaction::HangUp,
            1 => command_reply(CommandReply::SessionExpired),
            _ => applied(9),
        }));
        let client = client(&env);
        let result = client.set("k", "v").await;
        assert!(matches!(result, Err(ClientError::Unknown { .. })), "{result:?}");
        assert_eq!(client.set("k", "w").await, Ok(Version(9)), "with a new session");
        assert_eq!(env.writes(), [(1, 1, 1), (1, 1, 1), (2, 1, 1)]);
    });
}

#[test]
fn session_full_of_answers_is_tried_again_with_its_number() {
    run(async {
        let full = ResponseBody::Command(CommandReply::OutOfWindow);
        let first = ResponseBody::Command(CommandReply::Applied(Version(8)));
        let env = FakeEnv::new(with_sessions(move |_, count| match count {
            0 => Reaction::Hold(first.clone()),
            1 => Reaction::Answer(full.clone()),
            2 => Reaction::Release(full.clone()),
            _ => applied(9),
        }));
        let client = client(&env);
        let written = join_all(["a", "b"].map(|key| create(&client, key)));
        let versions = [Version(8), Version(9)].map(|version| Ok(CasResult::Applied(version)));
        assert_eq!(written.await, versions);
        assert_eq!(env.writes(), [(1, 1, 1), (1, 2, 1), (1, 2, 1), (1, 2, 2)]);
        env.script(|_, _| command_reply(CommandReply::OutOfWindow));
        let written = join_all(["a", "b"].map(|key| create(&client, key)));
        assert_eq!(written.await[0], Err(ClientError::Overloaded));
    });
}

/// The accident: an import that was taken over by another one tried for ten seconds, and then told
/// its user that the cluster was overloaded, and to take over in turn.
#[test]
fn session_that_somebody_else_has_ended_is_told_at_once() {
    run(async {
        let ended = || FakeEnv::new(with_sessions(|_, _| command_reply(CommandReply::OutOfWindow)));
        let env = ended();
        let lone = create(&client(&env), "k").await;
        assert_eq!(lone, Err(ClientError::SessionEnded));
        assert_eq!(env.writes().len(), 1);
        let (env, keys) = (ended(), ["a", "b", "c"]);
        let client = client(&env);
        let written = join_all(keys.map(|key| client.set(key, "v"))).await;
        assert_eq!(written, vec![Err(ClientError::SessionEnded); 3]);
        assert_eq!(env.writes().len(), 3);
    });
}

#[test]
fn session_that_was_ended_after_a_try_in_doubt_leaves_the_doubt() {
    run(async {
        let env = FakeEnv::new(with_sessions(|_, count| match count {
            0 => Reaction::HangUp,
            _ => command_reply(CommandReply::OutOfWindow),
        }));
        let result = client(&env).set("k", "v").await;
        assert!(matches!(result, Err(ClientError::Unknown { .. })), "{result:?}");
    });
}

#[test]
fn writes_at_once_share_one_session_and_one_connection() {
    run(async {
        let env = FakeEnv::new(with_sessions(|_, count| applied(count as u64)));
        let client = client(&env);
        let written = join_all((0..64).map(|n| client.set(format!("k{n}"), "v"))).await;
        assert!(written.iter().all(Result::is_ok), "{written:?}");
        assert_eq!(env.connects(), ["a"]);
        let mut seqs: Vec<_> = env.writes().iter().map(|(_, seq, _)| *seq).collect();
        seqs.sort_unstable();
        assert_eq!(seqs, (1..=64).collect::<Vec<_>>());
        client.set("k", "v").await.unwrap();
        assert_eq!(env.writes().last(), Some(&(1, 65, 65)), "all answers are acknowledged");
    });
}

#[test]
fn answers_out_of_order_reach_their_requests() {
    run(async {
        let mut count = 0;
        let env = FakeEnv::new(move |_, body| {
            let RequestBody::Query(Query::Get { key, .. }) = body else { return Reaction::HangUp };
            let value = Value::new(key.clone().into_bytes()).unwrap();
            let cell = Cell { value, version: Version(1) };
            let body = ResponseBody::Query(QueryReply::Cell(Some(cell)));
            count += 1;
            if count == 8 { Reaction::Release(body) } else { Reaction::Hold(body) }
        });
        let client = client(&env);
        let keys: Vec<String> = (0..8).map(|n| format!("k{n}")).collect();
        let cells = join_all(keys.iter().map(|key| client.get(key.clone()))).await;
        for (key, cell) in keys.iter().zip(cells) {
            assert_eq!(cell.unwrap().unwrap().value.as_bytes(), key.as_bytes());
        }
    });
}

#[test]
fn malformed_answers_close_the_connection_and_are_retried() {
    let misfit = ResponseBody::Query(QueryReply::Cells(Vec::new()));
    run(async {
        let mut count = 0;
        let env = FakeEnv::new(move |_, _| {
            count += 1;
            match count {
                1 => Reaction::Garbage,
                2 => Reaction::Answer(misfit.clone()),
                _ => Reaction::Answer(no_cell()),
            }
        });
        assert_eq!(client(&env).get("k").await, Ok(None));
        assert_eq!(env.asked(), ["a", "b", "c"]);
        env.sleep(Duration::from_millis(1)).await;
        assert_eq!(env.closed_count(), 3, "two for their answers, one with the client");
    });
}

#[test]
fn node_that_is_down_costs_no_more_than_a_wait() {
    run(async {
        let env = FakeEnv::new(|_, _| Reaction::Answer(no_cell()));
        env.down("a");
        env.down("b");
        assert_eq!(client(&env).get("k").await, Ok(None));
        assert_eq!(env.connects(), ["a", "b", "c"]);
        assert!(env.now().as_nanos() < 50_000_000, "{:?}", env.now());
    });
}

#[test]
fn cluster_that_is_down_is_unavailable_and_nothing_is_applied() {
    run(async {
        let env = FakeEnv::new(|_, _| Reaction::HangUp);
        for address in ["a", "b", "c"] {
            env.down(address);
        }
        let error = client(&env).set("k", "v").await.unwrap_err();
        assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
        assert_eq!(error.outcome(), Outcome::NotApplied);
    });
}

#[test]
fn refusal_by_every_node_is_final() {
    run(async {
        let env = FakeEnv::new(|_, _| Reaction::HangUp);
        let refusal = Refusal::Version { ours: 2, theirs: 1 };
        for address in ["a", "b", "c"] {
            env.refuse(address, refusal.clone());
        }
        assert_eq!(client(&env).get("k").await, Err(ClientError::Refused(refusal)));
        assert_eq!(env.connects().len(), 3);
    });
}

#[test]
fn node_of_another_cluster_is_left_although_both_were_connected_to_at_once() {
    let ours = Mode::PrimaryBackup { group: 1 };
    let elsewhere = [
        (ClusterId(8), ours, Refusal::Cluster { ours: ClusterId(8), theirs: ClusterId(7) }),
        (
            ClusterId(7),
            Mode::Masterless { placement: 1 },
            Refusal::Mode { ours: Mode::Masterless { placement: 1 }, theirs: ours },
        ),
        (
            ClusterId(7),
            Mode::PrimaryBackup { group: 2 },
            Refusal::Mode { ours: Mode::PrimaryBackup { group: 2 }, theirs: ours },
        ),
    ];
    for (cluster, mode, refusal) in elsewhere {
        run(async {
            let mut sessions = with_sessions(|_, count| match count {
                0 => applied(1),
                _ => Reaction::HangUp,
            });
            let env = FakeEnv::new(move |address, body| match body {
                RequestBody::Status => error(RequestError::Overloaded),
                RequestBody::Command(_)
                | RequestBody::FaultyCommand { .. }
                | RequestBody::Query(_)
                | RequestBody::Snapshot { .. } => sessions(address, body),
            });
            env.estrange("b", cluster, mode);
            let addresses = vec!["a".to_owned(), "b".to_owned()];
            let client = Client::connect(env.clone(), addresses, ClientOptions::default());
            let (own, other) =
                futures_util::future::join(client.status("a"), client.status("b")).await;
            assert_eq!(own, Err(ClientError::Overloaded), "it answered");
            assert_eq!(other, Err(ClientError::Refused(refusal.clone())));
            assert_eq!(client.set("k", "v").await, Ok(Version(1)));
            env.down("a");
            let result = client.set("k", "w").await;
            assert!(matches!(result, Err(ClientError::Unknown { .. })), "{result:?}");
            let result = client.set("k", "x").await.unwrap_err();
            assert_eq!(result.outcome(), Outcome::NotApplied, "{result}");
            assert!(env.connects().iter().filter(|address| *address == "b").count() > 1);
            assert!(env.asked().iter().all(|address| address == "a"), "{:?}", env.asked());
        });
    }
}

#[test]
fn node_of_another_cluster_than_the_one_that_is_wanted_is_refused() {
    run(async {
        let env = FakeEnv::new(|_, _| Reaction::Answer(no_cell()));
        let options = ClientOptions { cluster: Some(ClusterId(8)), ..ClientOptions::default() };
        let client = Client::connect(env.clone(), vec!["a".to_owned()], options);
        let refusal = Refusal::Cluster { ours: ClusterId(7), theirs: ClusterId(8) };
        assert_eq!(client.get("k").await, Err(ClientError::Refused(refusal)));
        assert_eq!(env.asked(), Vec::<String>::new());
    });
}

#[test]
fn silent_connection_is_closed_but_a_busy_one_is_kept() {
    run(async {
        let env = FakeEnv::new(|_, body| match body {
            RequestBody::Status | RequestBody::Snapshot { .. } => error(RequestError::Overloaded),
            RequestBody::Command(_) | RequestBody::FaultyCommand { .. } | RequestBody::Query(_) => {
                Reaction::Silence
            }
        });
        let client = client(&env);
        let options =
            ClientOptions { request_timeout: Duration::from_secs(1), ..ClientOptions::default() };
        let quick = Client::connect(env.clone(), client.addresses(), options);
        assert!(matches!(quick.get("k").await, Err(ClientError::Timeout { .. })));
        assert_eq!(env.connects(), ["a"]);
        let (read, status) = futures_util::future::join(quick.get("k"), async {
            env.sleep(Duration::from_millis(500)).await;
            quick.status("b").await
        })
        .await;
        assert!(read.is_err() && status.is_err(), "{read:?} {status:?}");
        assert_eq!(env.connects(), ["a", "b"], "the read went to b, where status found it open");
        assert!(quick.status("b").await.is_err(), "an answer came on b: it stays open");
        assert_eq!(env.connects(), ["a", "b"]);
    });
}

#[test]
fn large_write_passes_a_stream_that_takes_little_at_a_time() {
    run(async {
        let env = FakeEnv::new(with_sessions(|_, count| applied(count as u64)));
        let client = client(&env);
        let value = vec![7_u8; 1 << 20];
        let writes = (0..4).map(|n| client.set(format!("k{n}"), value.clone()));
        assert!(join_all(writes).await.iter().all(Result::is_ok));
    });
}

#[test]
fn session_of_another_client_is_ended_by_a_number_beyond_all_others() {
    for reply in [CommandReply::Applied(Version(7)), CommandReply::SessionExpired] {
        run(async {
            let env = FakeEnv::new(with_sessions(move |_, count| match count {
                0 => Reaction::HangUp,
                _ => command_reply(reply.clone()),
            }));
            let client = client(&env);
            assert_eq!(client.end_session(SessionId(77)).await, Ok(()));
            assert_eq!(env.writes(), [(77, u64::MAX, u64::MAX); 2], "it may be repeated");
            assert_eq!(client.session().await, Ok(Some(SessionId(1))));
            assert_eq!(client.session().await, Ok(Some(SessionId(1))), "it has one");
        });
    }
    run(async {
        let env = FakeEnv::new(|_, _| Reaction::HangUp).masterless();
        let client = client(&env);
        assert_eq!(client.session().await, Ok(None));
        assert_eq!(client.end_session(SessionId(77)).await, Ok(()));
        assert_eq!(env.asked(), Vec::<String>::new(), "there are no sessions");
    });
}

#[test]
fn future_dropped_in_flight_frees_its_number() {
    run(async {
        let env = FakeEnv::new(with_sessions(|_, count| match count {
            0 => Reaction::Silence,
            _ => applied(1),
        }));
        let client = client(&env);
        let write = client.set("k", "v");
        let dropped = crate::env::timeout(&env, Duration::from_millis(100), write).await;
        assert_eq!(dropped, None);
        client.set("k", "w").await.unwrap();
        assert_eq!(env.writes(), [(1, 1, 1), (1, 2, 2)]);
    });
}

#[test]
fn argument_over_its_limit_asks_nobody() {
    run(async {
        let env = FakeEnv::new(|_, _| Reaction::HangUp);
        let client = client(&env);
        let long = vec![0; 5 << 10];
        let error = client.set(long, "v").await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotApplied);
        let conditional = BatchBuilder::new().expect_absent("k", "").set("k", "v");
        let error = client.bulk_set(conditional.build().unwrap()).await.unwrap_err();
        assert!(matches!(error, ClientError::Invalid(_)), "{error}");
        let place = (Key::new(vec![0; 4 << 10]).unwrap(), Column::default());
        let query = Query::MultiGet { cells: vec![place; 2_049] };
        let error = client.query(query.clone()).await.unwrap_err();
        assert!(matches!(error, ClientError::TooLarge(_)), "{error}");
        let Query::MultiGet { cells } = query else { unreachable!() };
        let error = client.multi_get(cells).await.unwrap_err();
        assert!(matches!(error, ClientError::TooLarge(_)), "{error}");
        assert_eq!(env.connects(), Vec::<String>::new());
    });
}

#[test]
fn pages_are_put_together() {
    run(async {
        let env = FakeEnv::new(|_, body| {
            let key = |name: &'static str| Key::new(name).unwrap();
            let RequestBody::Query(Query::Keys { start, limit: 1, .. }) = body else {
                return Reaction::HangUp;
            };
            let (keys, next) = match start {
                None => (vec![key("a")], Some(key("b"))),
                Some(start) => (vec![start.clone()], None),
            };
            Reaction::Answer(ResponseBody::Query(QueryReply::Keys { keys, next }))
        });
        let mut pager = client(&env).keys(KeyRange::default()).page_limit(1);
        let mut found = Vec::new();
        while let Some(page) = pager.next_page().await.unwrap() {
            found.extend(page);
        }
        assert_eq!(found, [Key::new("a").unwrap(), Key::new("b").unwrap()]);
    });
}

#[test]
fn empty_page_with_a_next_one_is_followed() {
    run(async {
        let env = FakeEnv::new(|_, body| {
            let key = |name: &'static str| Key::new(name).unwrap();
            let column = |name: &'static str| Column::new(name).unwrap();
            let cell = Cell { value: Value::new("v").unwrap(), version: Version(1) };
            let RequestBody::Query(query) = body else { return Reaction::HangUp };
            Reaction::Answer(ResponseBody::Query(match query {
                Query::Keys { start: None, .. } => {
                    QueryReply::Keys { keys: Vec::new(), next: Some(key("b")) }
                }
                Query::Keys { .. } => QueryReply::Keys { keys: vec![key("c")], next: None },
                Query::Scan { start: None, .. } => {
                    let next = Some((key("b"), column("x")));
                    QueryReply::Scanned { cells: Vec::new(), next }
                }
                Query::Scan { .. } => {
                    QueryReply::Scanned { cells: vec![(key("c"), column("y"), cell)], next: None }
                }
                Query::Slice { start: None, .. } => {
                    QueryReply::Columns { columns: Vec::new(), next: Some(column("x")) }
                }
                Query::Slice { .. } | Query::Get { .. } | Query::MultiGet { .. } => {
                    QueryReply::Columns { columns: vec![(column("y"), cell)], next: None }
                }
            }))
        });
        let client = client(&env);
        let mut pager = client.keys(KeyRange::default());
        let mut keys = Vec::new();
        while let Some(page) = pager.next_page().await.unwrap() {
            keys.extend(page);
        }
        assert_eq!(keys, [Key::new("c").unwrap()]);
        let mut pager = client.scan(Key::default());
        let mut cells = Vec::new();
        while let Some(page) = pager.next_page().await.unwrap() {
            cells.extend(page);
        }
        assert_eq!(cells.len(), 1);
        assert_eq!(client.row("k").await.unwrap().len(), 1);
    });
}

/// Any way in which a try can fail, and whether the request was handed over.
fn failures() -> impl Strategy<Value = (TryFailure, bool)> {
    let what = || "gone".to_owned();
    let answered = prop::sample::select(vec![
        RequestError::NotLeader { leader: None },
        RequestError::NotLeader { leader: Some((NodeId(2), "b".to_owned())) },
        RequestError::NotReady,
        RequestError::LeadershipLost,
        RequestError::Overloaded,
        RequestError::Timeout,
        RequestError::ShuttingDown,
        RequestError::DiskFull,
        RequestError::Invalid(what()),
    ]);
    prop_oneof![
        answered.prop_map(|error| (TryFailure::Answered(error), true)),
        Just((TryFailure::Connect { address: "a".to_owned(), what: what() }, false)),
        any::<bool>().prop_map(move |sent| (TryFailure::ConnectionLost { what: what() }, sent)),
        Just((TryFailure::NoAnswer { limit: Duration::from_secs(1) }, true)),
        Just((TryFailure::Malformed { what: "nonsense" }, true)),
        Just((
            TryFailure::Refused(Refusal::Cluster { ours: ClusterId(1), theirs: ClusterId(2) }),
            false
        )),
    ]
}

/// Tells whether a try that ended so may have had an effect; written anew on purpose.
fn may_have_applied(failure: &TryFailure, sent: bool) -> bool {
    match failure {
        TryFailure::Answered(error) => error.outcome() == Outcome::Unknown,
        TryFailure::Connect { .. } | TryFailure::Refused(_) => false,
        TryFailure::ConnectionLost { .. }
        | TryFailure::NoAnswer { .. }
        | TryFailure::Malformed { .. } => sent,
    }
}

#[test]
fn what_a_node_answered_is_told_rather_than_that_another_is_down() {
    let (start, limit) = (Instant::default(), Duration::from_micros(9_903_425));
    let down = || TryFailure::Connect { address: "d".to_owned(), what: "refused".to_owned() };
    let few = || TryFailure::Answered(RequestError::Unavailable { needed: 4, alive: 3 });
    let silent = || TryFailure::Answered(RequestError::NotLeader { leader: None });
    for (tried, told) in [
        (vec![few(), down()], "needs 4 replicas"),
        (vec![down(), few()], "needs 4 replicas"),
        (vec![down(), silent()], "not the leader"),
        (vec![silent(), down()], "cannot connect to d"),
    ] {
        let mut tries = Tries::new(Kind::Harmless, start, limit, limit);
        for failure in tried {
            let sent = !matches!(failure, TryFailure::Connect { .. });
            assert_eq!(tries.fail_after(start, failure, sent, 4), None);
        }
        let said = tries.give_up(start + limit).to_string();
        assert!(said.starts_with("no node took the request within 9.903s: "), "{said}");
        assert!(said.contains(told), "{said}");
    }
}

proptest! {
    #[test]
    fn write_is_not_applied_only_if_no_try_was(tried in prop::collection::vec(failures(), 1..6)) {
        let start = Instant::default();
        let limit = Duration::from_secs(1);
        let mut tries = Tries::new(Kind::Write, start, limit, limit);
        let mut in_doubt = false;
        for (failure, sent) in tried {
            in_doubt |= may_have_applied(&failure, sent);
            if let Some(error) = tries.fail_after(start, failure, sent, 3) {
                prop_assert_eq!(error.outcome() == Outcome::Unknown, in_doubt, "{}", error);
                return Ok(());
            }
        }
        let error = tries.give_up(start);
        prop_assert_eq!(error.outcome() == Outcome::Unknown, in_doubt, "{}", error);
    }
}

/// Answers as a node does that has a snapshot of these bytes, four at a time.
fn give(index: u64, bytes: &'static [u8], offset: u64) -> Reaction {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = bytes.get(start..).unwrap_or_default();
    let data = rest.get(..4).unwrap_or(rest);
    let piece = crate::wire::SavedPiece {
        state: crate::wire::SavedState { index, term: 1 },
        offset,
        data: Payload::new(data).unwrap_or_default(),
        is_last: start + data.len() == bytes.len(),
    };
    Reaction::Answer(ResponseBody::Snapshot(Some(piece)))
}

async fn saved(client: &Client<FakeEnv>) -> Result<Vec<u8>, ClientError> {
    let (mut pager, mut bytes) = (client.snapshot(), Vec::new());
    while let Some(piece) = pager.next_piece().await? {
        bytes.truncate(usize::try_from(piece.offset).unwrap_or_default());
        bytes.extend_from_slice(piece.data.as_bytes());
    }
    Ok(bytes)
}

#[test]
fn snapshot_is_taken_from_one_node_although_the_connection_is_lost() {
    run(async {
        let mut lost_count = 0;
        let env = FakeEnv::new(move |address, body| match body {
            RequestBody::Snapshot { wanted: None, .. } if address == "a" => not_leader(Some("b")),
            RequestBody::Snapshot { wanted: None, .. } => give(7, b"0123456789", 0),
            RequestBody::Snapshot { wanted: Some(_), .. } if address != "b" => {
                Reaction::Answer(ResponseBody::Snapshot(None))
            }
            RequestBody::Snapshot { offset: 4, .. } if lost_count < 2 => {
                lost_count += 1;
                Reaction::HangUp
            }
            RequestBody::Snapshot { offset, .. } => give(7, b"0123456789", *offset),
            RequestBody::Command(_)
            | RequestBody::FaultyCommand { .. }
            | RequestBody::Query(_)
            | RequestBody::Status => error(RequestError::Overloaded),
        });
        let client = client(&env);
        assert_eq!(saved(&client).await, Ok(b"0123456789".to_vec()));
        assert_eq!(env.asked(), ["a", "b", "b", "b", "b", "b"]);
    });
}

#[test]
fn snapshot_that_is_gone_is_begun_anew_but_not_for_ever() {
    run(async {
        for gone_count in [2, 9] {
            let mut count = 0;
            let env = FakeEnv::new(move |_, body| match body {
                RequestBody::Snapshot { wanted: None, .. } => give(count + 1, b"012345", 0),
                RequestBody::Snapshot { .. } if count < gone_count => {
                    count += 1;
                    Reaction::Answer(ResponseBody::Snapshot(None))
                }
                RequestBody::Snapshot { offset, .. } => give(count + 1, b"012345", *offset),
                RequestBody::Command(_)
                | RequestBody::FaultyCommand { .. }
                | RequestBody::Query(_)
                | RequestBody::Status => error(RequestError::Overloaded),
            });
            let saved = saved(&client(&env)).await;
            assert_eq!(saved.is_ok(), gone_count == 2, "{saved:?}");
        }
    });
}

#[test]
fn piece_of_another_place_is_no_answer() {
    run(async {
        let env = FakeEnv::new(move |_, body| match body {
            RequestBody::Snapshot { wanted: None, .. } => give(7, b"012345", 0),
            RequestBody::Snapshot { offset, .. } => give(7, b"0123456789", offset + 1),
            RequestBody::Command(_)
            | RequestBody::FaultyCommand { .. }
            | RequestBody::Query(_)
            | RequestBody::Status => error(RequestError::Overloaded),
        });
        assert!(saved(&client(&env)).await.is_err());
    });
}

#[test]
fn fault_that_is_asked_for_accompanies_writes_alone_and_ends_with_its_client() {
    run(async {
        let asked = Arc::<Mutex<Vec<Option<u32>>>>::default();
        let heard = Arc::clone(&asked);
        let mut sessions = with_sessions(|_, _| applied(1));
        let env = FakeEnv::new(move |address, body| {
            let loss = match body {
                RequestBody::FaultyCommand { loss_ppm, .. } => Some(*loss_ppm),
                RequestBody::Command(_)
                | RequestBody::Query(_)
                | RequestBody::Status
                | RequestBody::Snapshot { .. } => None,
            };
            heard.lock().unwrap().push(loss);
            sessions(address, body)
        });
        let client = client(&env);
        let faulty = client.with_debug_table_loss(0.25);
        faulty.set("k", "v").await.unwrap();
        faulty.get("k").await.unwrap();
        client.set("k", "v").await.unwrap();
        faulty.with_debug_table_loss(0.0).set("k", "v").await.unwrap();
        // The first is the registration of the session.
        assert_eq!(*asked.lock().unwrap(), [None, Some(250_000), None, None, None]);
    });
}

#[test]
fn probability_is_counted_in_millionths() {
    let wanted = [(0.0, 0), (0.5, 500_000), (1.0, 1_000_000), (7.0, 1_000_000), (-1.0, 0)];
    for (probability, millionths) in wanted {
        assert_eq!(ppm(probability), millionths, "{probability}");
    }
    assert_eq!(ppm(f64::NAN), 0);
}
