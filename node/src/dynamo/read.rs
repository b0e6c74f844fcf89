//! Reads: of clients, which this node coordinates, and of peers, which it answers.
//!
//! [`super::core`] brings here a client's request, the answers of replicas and of the own store,
//! and the acknowledgements of repairs. What answers mean is [`super::group`]'s matter, how they
//! are merged [`super::merge`]'s.
//!
//! # The life of a read
//! The ranges of a request are grouped by the replicas that hold them. In each group as many
//! replicas are asked as the level says: the own node first, then the fastest that are up; the
//! first for everything, the others for a digest. If the digests agree, that is the answer. If
//! not, everything is asked of all of them, the newest of it is written to those that lack it,
//! and only when they have acknowledged it is the client answered (see [`super::group`] for why).
//! At level One nothing is compared: what the first replica says is the answer.
//!
//! A replica that does not answer in a few times of what it usually takes is not waited for:
//! another one is asked as well, and whoever comes first counts. When everybody was asked, the
//! questions and repairs that are not answered are sent again, at growing intervals: a message
//! may be lost without a connection breaking. One answer per replica counts, so no repetition
//! makes two replicas of one.
//!
//! A replica that is not whole says so, and another one is asked in its place, as when its disk is
//! lost after it has answered: what it said, or was given, it may have no more. If there are not
//! enough up and whole, the client hears so at once.
//!
//! # After the answer
//! If it is configured ([`Repair::reads`](super::config::Repair::reads)), the replicas that were
//! not asked are now compared with those that were, and repaired: the same group goes on without
//! a client, with everybody needed. A budget per second and a number under way bound that; over
//! it the comparison is left to anti-entropy.
//!
//! # The short way
//! A read at level One of what this node holds, of which nothing is to be compared afterwards, is
//! a look at the own store and nothing more. The shell asks whether a read is one of these
//! ([`may_answer_alone`](super::Dynamo::may_answer_alone)); then the core never hears of it. On a
//! busy node that is nearly every read at that level.
//!
//! # Left out
//! Isolation: the ranges of a read are read one after the other, on each replica at another time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::context::{Context, Owner};
use super::core::DynamoStatus;
use super::group::{Group, Repair, Verdict};
use super::merge;
use super::message::{Chunk, Message, Range, ReadReply, RequestId, WriteOutcome};
use super::placement::partition_of_place;
use super::plan::{Planned, can_answer, count, plan};
use super::ready::{Found, Level, ReadId, Reply, StoreRead, Token};
use crate::base::{Entry, Instant, NodeId, Stamp};
use crate::{planted, probe};

/// Weight of the newest measurement in a replica's usual latency: one of so many.
const LATENCY_WEIGHT: u32 = 8;
/// A replica is slow after so many times of its usual latency.
const SLOW_FACTOR: u32 = 3;

/// The reads that this node coordinates, and those that its store is asked for.
#[derive(Debug)]
pub(super) struct Reads {
    clients: BTreeMap<Token, Client>,
    /// By the number of the [`RequestId`] under which the replicas are asked.
    questions: BTreeMap<u64, Question>,
    /// When which question is to be looked at again.
    timers: BTreeSet<(Instant, u64)>,
    /// What the own store is asked for.
    own: BTreeMap<ReadId, Asker>,
    /// Which question a repair belongs to, by the number of its write.
    repairs: BTreeMap<u64, u64>,
    /// How long each peer usually takes to answer.
    latency: BTreeMap<NodeId, Duration>,
    /// Bytes of the answers that are kept.
    bytes: usize,
    background: Budget,
}

/// A client's request.
#[derive(Debug)]
struct Client {
    /// The answer to each range, as far as there is one.
    answers: Vec<Chunk>,
    /// Bytes of these, as counted in [`Reads::bytes`].
    bytes: usize,
    /// The questions that are not answered yet.
    open: BTreeSet<u64>,
    /// The largest stamp met.
    seen: Stamp,
}

/// A group of ranges that the same replicas are asked for.
#[derive(Debug)]
struct Question {
    id: RequestId,
    /// The client who waits, and where in its request the ranges are; `None` in the background.
    client: Option<(Token, Vec<usize>)>,
    group: Group,
    /// All who may be asked, in the order in which they are.
    replicas: Vec<NodeId>,
    deadline: Instant,
    /// When it is looked at again, unless it is over by then.
    wake: Instant,
    /// From then to the next time.
    patience: Duration,
    rereads: u32,
    /// Bytes of its answers, as counted in [`Reads::bytes`].
    bytes: usize,
}

/// Who wants to know what the own store has.
#[derive(Debug)]
enum Asker {
    /// A question of this node.
    Own(u64),
    /// A peer, by a message of that name.
    Peer { from: NodeId, id: RequestId, ranges: Vec<Range>, digest_only: bool },
}

/// What may still be spent on comparisons in the background.
#[derive(Debug)]
struct Budget {
    /// In billionths of a comparison.
    left_nanos: u64,
    filled: Instant,
    under_way: usize,
}

impl Budget {
    /// One comparison.
    const ONE: u64 = 1_000_000_000;

    /// Takes one comparison if there is one left.
    fn take(&mut self, context: &Context) -> bool {
        let is_left = self.has_one(context);
        if is_left {
            self.left_nanos -= Self::ONE;
        }
        is_left
    }

    /// Tells whether there is one left.
    fn has_one(&mut self, context: &Context) -> bool {
        let per_second = u64::from(context.config.background_reads_per_second);
        let elapsed = u64::try_from(context.now.since(self.filled).as_nanos()).unwrap_or(u64::MAX);
        self.filled = context.now;
        let filled = self.left_nanos.saturating_add(elapsed.saturating_mul(per_second));
        self.left_nanos = filled.min(Self::ONE.saturating_mul(per_second));
        self.left_nanos >= Self::ONE && self.under_way < context.config.background_reads_max
    }
}

/// Coordinating.
impl Reads {
    /// Starts without any.
    pub(super) fn new(context: &Context) -> Self {
        Self {
            clients: BTreeMap::new(),
            questions: BTreeMap::new(),
            timers: BTreeSet::new(),
            own: BTreeMap::new(),
            repairs: BTreeMap::new(),
            latency: BTreeMap::new(),
            bytes: 0,
            background: Budget { left_nanos: 0, filled: context.now, under_way: 0 },
        }
    }

    /// Tells whether the own store alone answers a read, and nothing follows from it.
    pub(super) fn may_answer_alone(
        &mut self,
        context: &Context,
        level: Level,
        ranges: &[Range],
    ) -> bool {
        let placement = &context.config.placement;
        let is_own = |range: &Range| {
            let replicas = placement.replicas(range.partition);
            level.needed(replicas.len()) == Some(1)
                && placement.is_replica(context.id(), range.partition)
        };
        context.is_whole
            && ranges.len() <= context.config.read_ranges_max
            && ranges.iter().all(is_own)
            && !(context.config.repair.reads && self.background.has_one(context))
    }

    /// A client wants to read.
    pub(super) fn on_client_read(
        &mut self,
        context: &mut Context,
        token: Token,
        level: Level,
        ranges: Vec<Range>,
    ) {
        assert!(!self.clients.contains_key(&token), "token {token} names two reads");
        let config = &context.config;
        if ranges.len() > config.read_ranges_max {
            return context.reply(token, Reply::Invalid("too many ranges in one read"));
        }
        let is_full = self.clients.len() >= config.pending_reads_max;
        if is_full || self.bytes >= config.pending_read_bytes_max {
            probe!("dynamo.read_overloaded");
            return context.reply(token, Reply::Overloaded);
        }
        let count = ranges.len();
        let groups = match plan(context, level, ranges) {
            Ok(groups) => groups,
            Err(reply) => return context.reply(token, reply),
        };
        if groups.is_empty() {
            return context.reply(token, Reply::Read { chunks: Vec::new(), seen: Stamp::ZERO });
        }
        let answers = vec![Chunk::default(); count];
        let open = BTreeSet::new();
        self.clients.insert(token, Client { answers, bytes: 0, open, seen: Stamp::ZERO });
        for planned in groups {
            self.begin(context, token, planned);
        }
    }

    fn begin(&mut self, context: &mut Context, token: Token, planned: Planned) {
        let Planned { positions, ranges, needed, replicas } = planned;
        let mut replicas = replicas;
        let is_last = |node: &NodeId| !can_answer(context, *node);
        let latency = |node: &NodeId| self.usual_latency(context, *node);
        replicas.sort_by_key(|node| (is_last(node), *node != context.id(), latency(node), *node));
        let id = context.next_id();
        let asked = replicas.iter().take(needed);
        let slowest = asked.map(|node| self.usual_latency(context, *node)).max();
        let patience =
            (slowest.unwrap_or_default() * SLOW_FACTOR).max(context.config.speculate_after_min);
        let question = Question {
            id,
            client: Some((token, positions)),
            group: Group::new(ranges, needed),
            replicas,
            deadline: context.now + context.config.read_timeout,
            wake: context.now + patience,
            patience,
            rereads: 0,
            bytes: 0,
        };
        self.timers.insert((question.timer(), id.number));
        self.questions.insert(id.number, question);
        if let Some(client) = self.clients.get_mut(&token) {
            client.open.insert(id.number);
        }
        for at in 0..needed {
            self.ask_next(context, id.number, at > 0);
        }
    }

    /// Asks the next replica that was not asked, if there is one that can answer.
    fn ask_next(&mut self, context: &mut Context, number: u64, digest_only: bool) -> bool {
        let Some(question) = self.questions.get(&number) else { return false };
        let mut unasked =
            question.replicas.iter().filter(|node| !question.group.asked.contains_key(node));
        let next = unasked.find(|node| can_answer(context, **node)).copied();
        if let Some(node) = next {
            self.ask(context, number, node, digest_only);
        }
        next.is_some()
    }

    fn ask(&mut self, context: &mut Context, number: u64, node: NodeId, digest_only: bool) {
        let Some(question) = self.questions.get_mut(&number) else { return };
        let ranges = question.group.ranges.clone();
        if node == context.id() {
            question.group.ask(node, context.now, true);
            let read = context.read_store(Owner::Reads, StoreRead::Ranges(ranges));
            self.own.insert(read, Asker::Own(number));
        } else {
            question.group.ask(node, context.now, !digest_only);
            context.send(node, Message::Read { id: question.id, ranges, digest_only });
        }
    }

    /// A replica answers a read.
    pub(super) fn on_read_reply(
        &mut self,
        context: &mut Context,
        from: NodeId,
        id: RequestId,
        reply: ReadReply,
    ) {
        let Some(question) = self.questions.get_mut(&id.number) else { return };
        if question.id != id {
            return;
        }
        let asked_at = question.group.asked.get(&from).map(|asked| asked.at);
        let is_told = !matches!(reply, ReadReply::NotReady);
        if let ReadReply::Data(chunks) = &reply {
            let stamps = chunks.iter().map(merge::largest_stamp);
            context.clock.observe(stamps.max().unwrap_or_default());
        }
        if !question.group.on_reply(from, reply) {
            return;
        }
        if let (Some(asked_at), true) = (asked_at, is_told && from != context.id()) {
            self.measure(from, context.now.since(asked_at));
        }
        self.recount(id.number);
        if self.bytes > context.config.pending_read_bytes_max && self.is_one_of_many(id.number) {
            probe!("dynamo.read_answers_are_too_many");
            return self.fail(context, id.number, Reply::Overloaded);
        }
        if !is_told {
            probe!("dynamo.read_replica_not_ready");
            if !self.ask_next(context, id.number, false) {
                return self.give_up_if_hopeless(context, id.number);
            }
        }
        self.advance(context, id.number);
    }

    /// Does what the answers so far call for.
    fn advance(&mut self, context: &mut Context, number: u64) {
        loop {
            let Some(question) = self.questions.get(&number) else { return };
            match question.group.verdict() {
                Verdict::Wait => return,
                Verdict::AskFully(nodes) => {
                    probe!("dynamo.read_digests_differ");
                    for node in nodes {
                        self.ask(context, number, node, false);
                    }
                }
                Verdict::Repair(repairs) => {
                    for (node, entries) in repairs {
                        if !self.repair(context, number, node, entries) {
                            return self.reread(context, number);
                        }
                    }
                }
                // The tick will tell that it is over; see `write` for why.
                Verdict::Agreed(_) if question.deadline <= context.now && !planted!("D73") => {
                    return;
                }
                Verdict::Agreed(chunks) => return self.finish(context, number, chunks),
            }
        }
    }

    /// Gives a replica what it lacks; false if this node is it and has seen it deleted.
    fn repair(
        &mut self,
        context: &mut Context,
        number: u64,
        node: NodeId,
        entries: Vec<Vec<Entry>>,
    ) -> bool {
        probe!("dynamo.read_repairs");
        let Some(question) = self.questions.get_mut(&number) else { return true };
        let first = planted!("D19").then(|| question.group.first_answer());
        let sent = first.unwrap_or_else(|| entries.iter().flatten().cloned().collect());
        let is_own = node == context.id();
        if is_own && sent.iter().any(|entry| context.refuses(entry, true)) {
            return false;
        }
        let id = context.write(Owner::Reads, node, sent);
        self.repairs.insert(id.number, number);
        if let Some(asked) = question.group.asked.get_mut(&node) {
            asked.at = context.now;
            asked.repair = Some(Repair { id, entries });
        }
        true
    }

    /// A replica, perhaps this node, answers a repair.
    pub(super) fn on_write_reply(
        &mut self,
        context: &mut Context,
        from: NodeId,
        id: RequestId,
        outcome: WriteOutcome,
    ) {
        let Some(number) = self.repairs.remove(&id.number) else { return };
        let Some(question) = self.questions.get_mut(&number) else { return };
        match outcome {
            WriteOutcome::Stored => {
                question.group.on_repaired(from);
                self.advance(context, number);
            }
            WriteOutcome::Refused => self.reread(context, number),
            WriteOutcome::DiskFull => {
                if let Some(asked) = question.group.asked.get_mut(&from) {
                    asked.repair = None;
                    asked.is_useless = true;
                }
                if self.ask_next(context, number, false) {
                    self.advance(context, number);
                } else {
                    self.give_up_if_hopeless(context, number);
                }
            }
        }
    }

    /// The disk of a replica was lost, and with it what it said, or acknowledged, to have: another
    /// one is asked in its place.
    pub(super) fn on_disk_lost(&mut self, context: &mut Context, node: NodeId) {
        let mut concerned = Vec::new();
        for (&number, question) in &mut self.questions {
            let Some(asked) = question.group.asked.get_mut(&node) else { continue };
            if let Some(repair) = asked.forget() {
                context.forget(repair.id);
                self.repairs.remove(&repair.id.number);
            }
            concerned.push(number);
        }
        for number in concerned {
            probe!("dynamo.answer_is_void");
            self.recount(number);
            if self.ask_next(context, number, false) {
                self.advance(context, number);
            } else {
                self.give_up_if_hopeless(context, number);
            }
        }
    }

    /// Asks everybody again: a replica's floor rose meanwhile, so the answers are out of date.
    fn reread(&mut self, context: &mut Context, number: u64) {
        probe!("dynamo.read_repair_refused");
        let Some(mut question) = self.take(context, number) else { return };
        if question.rereads >= context.config.rereads_max {
            // Until the time-out: no answer is better than one that the next read takes back.
            question.wake = question.deadline;
            return self.put_back(question);
        }
        question.rereads += 1;
        question.id = context.next_id();
        let nodes: Vec<NodeId> = question.group.asked.keys().copied().collect();
        question.group.asked.clear();
        let number = question.id.number;
        self.put_back(question);
        for node in nodes {
            self.ask(context, number, node, false);
        }
    }

    /// Ends a read that too few replicas can answer.
    fn give_up_if_hopeless(&mut self, context: &mut Context, number: u64) {
        let Some(question) = self.questions.get(&number) else { return };
        let is_left = |node: &&NodeId| match question.group.asked.get(node) {
            Some(asked) => !asked.is_useless,
            None => can_answer(context, **node),
        };
        let left = question.replicas.iter().filter(is_left).count();
        if left < question.group.needed {
            let (needed, alive) = (count(question.group.needed), count(left));
            self.fail(context, number, Reply::Unavailable { needed, alive });
        }
    }

    /// Tells whether others' answers are kept besides those of a question's read: one read alone
    /// may exceed the limit, by what the replicas' answers to all its questions can be.
    fn is_one_of_many(&self, number: u64) -> bool {
        let Some(question) = self.questions.get(&number) else { return false };
        let client = question.client.as_ref().and_then(|(token, _)| self.clients.get(token));
        let bytes = client.map_or(question.bytes, |client| {
            let open = client.open.iter().filter_map(|number| self.questions.get(number));
            client.bytes + open.map(|question| question.bytes).sum::<usize>()
        });
        bytes < self.bytes
    }

    fn fail(&mut self, context: &mut Context, number: u64, reply: Reply) {
        let Some(question) = self.take(context, number) else { return };
        let Some((token, _)) = question.client else { return };
        self.drop_client(context, token);
        context.reply(token, reply);
    }

    /// A question is answered.
    fn finish(&mut self, context: &mut Context, number: u64, chunks: Vec<Chunk>) {
        let Some(mut question) = self.take(context, number) else { return };
        let Some((token, positions)) = question.client.take() else { return };
        // Not of an answer that was outvoted: a session would take what it knows from there for
        // deleted.
        let seen = if planted!("D60") {
            question.group.largest_stamp()
        } else {
            chunks.iter().map(merge::largest_stamp).max().unwrap_or_default()
        };
        let Some(client) = self.clients.get_mut(&token) else { return };
        client.seen = client.seen.max(seen);
        let mut bytes = 0;
        for (position, chunk) in positions.into_iter().zip(chunks) {
            if let Some(answer) = client.answers.get_mut(position) {
                *answer = chunk;
                merge::strip(answer);
                bytes += answer.entries.iter().map(Entry::bytes).sum::<usize>();
            }
        }
        client.bytes += bytes;
        self.bytes += bytes;
        if client.open.is_empty()
            && let Some(client) = self.clients.remove(&token)
        {
            self.bytes -= client.bytes;
            let reply = Reply::Read { chunks: client.answers, seen: client.seen };
            context.reply(token, reply);
        }
        self.compare_rest(context, question);
    }

    /// Goes on with the replicas that have not answered, in the background.
    fn compare_rest(&mut self, context: &mut Context, mut question: Question) {
        let group = &mut question.group;
        group.asked.retain(|_, asked| asked.has_answered() && !asked.is_useless);
        let is_rest = |node: &NodeId| !group.asked.contains_key(node) && can_answer(context, *node);
        let rest: Vec<NodeId> = question.replicas.iter().copied().filter(is_rest).collect();
        if rest.is_empty() || !context.config.repair.reads || !self.background.take(context) {
            return;
        }
        probe!("dynamo.read_compares_in_background");
        group.needed = group.told_count() + rest.len();
        let digest_only = !group.is_different();
        question.deadline = context.now + context.config.read_timeout;
        question.wake = question.deadline;
        let number = question.id.number;
        self.put_back(question);
        for node in rest {
            self.ask(context, number, node, digest_only);
        }
    }

    /// A client does not wait any more.
    pub(super) fn on_forget(&mut self, context: &mut Context, token: Token) {
        self.drop_client(context, token);
    }

    fn drop_client(&mut self, context: &mut Context, token: Token) {
        let Some(client) = self.clients.remove(&token) else { return };
        self.bytes -= client.bytes;
        for number in client.open {
            self.take(context, number);
        }
    }

    /// Takes a question out, with all that waits for it.
    fn take(&mut self, context: &mut Context, number: u64) -> Option<Question> {
        let mut question = self.questions.remove(&number)?;
        self.timers.remove(&(question.timer(), number));
        self.bytes -= question.bytes;
        question.bytes = 0;
        match &question.client {
            Some((token, _)) => {
                if let Some(client) = self.clients.get_mut(token) {
                    client.open.remove(&number);
                }
            }
            None => self.background.under_way -= 1,
        }
        for asked in question.group.asked.values_mut() {
            if let Some(repair) = asked.repair.take() {
                context.forget(repair.id);
                self.repairs.remove(&repair.id.number);
            }
        }
        Some(question)
    }

    /// Puts a question, perhaps with another name, where [`take`](Self::take) found it.
    fn put_back(&mut self, question: Question) {
        let number = question.id.number;
        match &question.client {
            Some((token, _)) => {
                if let Some(client) = self.clients.get_mut(token) {
                    client.open.insert(number);
                }
            }
            None => self.background.under_way += 1,
        }
        self.timers.insert((question.timer(), number));
        self.questions.insert(number, question);
        self.recount(number);
    }

    /// Counts the bytes of a question's answers again.
    fn recount(&mut self, number: u64) {
        let Some(question) = self.questions.get_mut(&number) else { return };
        let bytes = question.group.bytes();
        self.bytes = self.bytes + bytes - question.bytes;
        question.bytes = bytes;
    }

    fn usual_latency(&self, context: &Context, node: NodeId) -> Duration {
        if node == context.id() {
            return Duration::ZERO;
        }
        self.latency.get(&node).copied().unwrap_or(context.config.speculate_after_min)
    }

    fn measure(&mut self, node: NodeId, latency: Duration) {
        let usual = self.latency.entry(node).or_insert(latency);
        *usual = (*usual * (LATENCY_WEIGHT - 1) + latency) / LATENCY_WEIGHT;
    }
}

/// Time.
impl Reads {
    /// What was in flight to a peer may be lost: whoever waits for it looks around at once.
    pub(super) fn on_peer_lost(&mut self, context: &mut Context, peer: NodeId) {
        let waits = |question: &Question| {
            let asked = question.group.asked.get(&peer);
            asked.is_some_and(|asked| !asked.has_answered() || asked.repair.is_some())
        };
        let waiting = self.questions.values_mut().filter(|question| waits(question));
        for question in waiting {
            let old = question.timer();
            question.wake = context.now;
            self.timers.remove(&(old, question.id.number));
            self.timers.insert((question.timer(), question.id.number));
        }
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, context: &mut Context) {
        while let Some(&(at, number)) = self.timers.first()
            && at <= context.now
        {
            let Some(question) = self.questions.get_mut(&number) else {
                self.timers.pop_first();
                continue;
            };
            if question.deadline <= context.now {
                self.fail(context, number, Reply::Timeout);
                continue;
            }
            self.timers.pop_first();
            // A peer whose connection breaks again and again doubles it as often.
            let patience = question.patience.saturating_mul(2);
            question.patience = patience.min(context.config.read_timeout);
            question.wake = context.now + question.patience;
            self.timers.insert((question.timer(), number));
            probe!("dynamo.read_speculates");
            if !self.ask_next(context, number, false) {
                self.ask_again(context, number);
            }
        }
    }

    /// Repeats what is not answered: a message may be lost.
    fn ask_again(&mut self, context: &mut Context, number: u64) {
        let Some(question) = self.questions.get_mut(&number) else { return };
        let mut silent = Vec::new();
        let mut unrepaired = Vec::new();
        for (node, asked) in &mut question.group.asked {
            if !asked.has_answered() {
                silent.push((*node, !asked.is_full));
            } else if let Some(repair) = asked.repair.take() {
                context.forget(repair.id);
                self.repairs.remove(&repair.id.number);
                unrepaired.push((*node, repair.entries));
            }
        }
        let own = context.id();
        for (node, digest_only) in silent.into_iter().filter(|(node, _)| *node != own) {
            self.ask(context, number, node, digest_only);
        }
        for (node, entries) in unrepaired {
            if !self.repair(context, number, node, entries) {
                return self.reread(context, number);
            }
        }
    }

    /// Returns when it must be ticked, if ever.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Checks its invariants.
    pub(super) fn check(&self, context: &Context) {
        let asked: usize = self.questions.values().map(|question| question.bytes).sum();
        let answered: usize = self.clients.values().map(|client| client.bytes).sum();
        let bytes = asked + answered;
        assert!(bytes == self.bytes, "D11: {bytes} bytes of answers, {} counted", self.bytes);
        let background = self.questions.values().filter(|q| q.client.is_none()).count();
        assert!(
            background == self.background.under_way
                && background <= context.config.background_reads_max,
            "D11: {background} comparisons under way, {} counted",
            self.background.under_way
        );
        let count = self.clients.len();
        assert!(count <= context.config.pending_reads_max, "D11: {count} reads under way");
        assert!(self.timers.len() == self.questions.len(), "D11: a question without a timer");
        for (token, client) in &self.clients {
            let is_open = client.open.iter().all(|number| self.questions.contains_key(number));
            assert!(is_open && !client.open.is_empty(), "D11: nobody answers read {token}");
        }
    }

    /// Tells how it is.
    pub(super) fn status(&self, status: &mut DynamoStatus) {
        status.pending_reads = self.clients.len();
        status.background_reads = self.background.under_way;
        status.pending_read_bytes = self.bytes;
    }
}

/// Answering.
impl Reads {
    /// A peer asks what is here.
    pub(super) fn on_read_message(
        &mut self,
        context: &mut Context,
        from: NodeId,
        id: RequestId,
        ranges: Vec<Range>,
        digest_only: bool,
    ) {
        let is_held = |range: &Range| {
            partition_of_place(range.start.as_bytes()) == Some(range.partition)
                && range.end.as_ref().is_none_or(|end| *end >= range.start)
                && context.config.placement.is_replica(context.id(), range.partition)
        };
        let is_too_much = ranges.len() > context.config.read_ranges_max;
        if !context.is_whole || is_too_much || !ranges.iter().all(is_held) {
            probe!("dynamo.replica_not_ready");
            let reply = ReadReply::NotReady;
            return context.send(from, Message::ReadReply { id, reply });
        }
        let read = context.read_store(Owner::Reads, StoreRead::Ranges(ranges.clone()));
        self.own.insert(read, Asker::Peer { from, id, ranges, digest_only });
    }

    /// The own store answers.
    pub(super) fn on_store_read(&mut self, context: &mut Context, read: ReadId, found: Found) {
        let (Some(asker), Found::Chunks(chunks)) = (self.own.remove(&read), found) else { return };
        match asker {
            Asker::Own(number) => {
                let Some(question) = self.questions.get(&number) else { return };
                let (own, id) = (context.id(), question.id);
                let reply =
                    if context.is_whole { ReadReply::Data(chunks) } else { ReadReply::NotReady };
                self.on_read_reply(context, own, id, reply);
            }
            Asker::Peer { from, id, ranges, digest_only } => {
                let mut pairs = ranges.iter().zip(&chunks);
                assert!(
                    chunks.len() == ranges.len()
                        && pairs.all(|(range, chunk)| merge::is_answer(range, chunk)),
                    "the store answers {chunks:?} to {ranges:?}"
                );
                let reply = if digest_only {
                    ReadReply::Digest(merge::digest(&chunks))
                } else {
                    ReadReply::Data(chunks)
                };
                context.send(from, Message::ReadReply { id, reply });
            }
        }
    }
}

impl Question {
    fn timer(&self) -> Instant {
        self.wake.min(self.deadline)
    }
}
