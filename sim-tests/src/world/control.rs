//! What a nemesis can do to a world, besides ending and pausing processes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mangrove::base::Rng;

use super::core::nanos;
use super::disk::{DiskId, DiskState, FileState, PowerLoss, Rot, SimDisk};
use super::env::SimEnv;
use super::fault::Fault;
use super::net::{Hold, Reset};
use super::options::{DiskOptions, LinkOptions, NetOptions};
use super::{Clock, Fence, Host, State, World};

impl State {
    /// Draws how far the clocks of a new machine are off.
    pub(super) fn draw_clock(&mut self, host: Host) {
        let options = self.options.clock.clone();
        let rng = self.host(host).rng.clone();
        let offset_max = nanos(options.wall_offset_max);
        if offset_max > 0 {
            let drawn = rng.split("clock.wall").range(0, offset_max.saturating_mul(2));
            let offset = i64::try_from(i128::from(drawn) - i128::from(offset_max)).unwrap_or(0);
            self.host_mut(host).clock = Clock::new(offset);
            self.host_mut(host).wall_is_off = true;
            self.core.faults.injected(Fault::C1);
        }
        if options.drift_ppb_max > 0 {
            let max = i64::from(options.drift_ppb_max);
            let drawn = rng.split("clock.drift").range(0, u64::from(options.drift_ppb_max) * 2);
            self.set_drift(host, i64::try_from(drawn).unwrap_or(max) - max);
        }
    }

    /// Tells the log of the files of a disk that stands where another one stood.
    fn note_exchange(&self, old: Option<&DiskState>, new: DiskId) {
        let names = old.map_or(Vec::new(), |old| old.file_names(&self.core));
        if let Some(disk) = self.disks.get(&new) {
            disk.note_files_instead_of(&self.core, &names);
        }
    }

    fn set_drift(&mut self, host: Host, drift_ppb: i64) {
        let now = self.core.now();
        self.host_mut(host).clock.set_rate(now, drift_ppb);
        if drift_ppb != 0 {
            self.core.faults.injected(Fault::C2);
        }
    }
}

/// Clocks.
impl World {
    /// Lets a wall clock jump (C3), forward or back.
    pub fn jump_wall(&self, host: Host, forward: bool, by: Duration) {
        let by = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        let by = if forward { by } else { -by };
        self.shared.with(|state| {
            state.host_mut(host).clock.jump(by);
            if by != 0 {
                state.core.faults.injected(Fault::C3);
            }
            let number = u64::from_le_bytes(by.to_le_bytes());
            state.core.event(host, "clock.jump", (number, 0), || format!("{by} ns"));
        });
    }

    /// Makes both clocks of a machine run faster or slower (C2), in parts per thousand million.
    pub fn set_drift(&self, host: Host, drift_ppb: i64) {
        self.shared.with(|state| {
            state.set_drift(host, drift_ppb);
            let number = u64::from_le_bytes(drift_ppb.to_le_bytes());
            state.core.event(host, "clock.drift", (number, 0), || format!("{drift_ppb} ppb"));
        });
    }

    /// Changes how late timers may be (C5).
    pub fn set_timer_late_max(&self, late_max: Duration) {
        self.shared.with(|state| state.timer_late_max = late_max);
    }
}

/// Links and connections.
impl World {
    /// Changes the options of the network.
    pub fn change_net(&self, change: impl FnOnce(&mut NetOptions)) {
        self.shared.with(|state| change(&mut state.net.options));
    }

    /// Cuts one direction between two machines (N4): bytes are held, connecting hangs.
    pub fn block(&self, from: Host, to: Host) {
        self.shared.with(|state| state.net.hold(&mut state.core, from, to, Hold::Block));
    }

    /// Returns how long it takes until all has arrived that is on its way between servers now.
    /// What was lost or held comes seconds after the loss or the partition has ended.
    pub fn transit_left(&self) -> Duration {
        self.shared.with(|state| {
            let until = state.net.quiet_at();
            Duration::from_nanos(until.saturating_sub(state.core.now()))
        })
    }

    /// Opens one direction again. What was held comes after a retransmission delay.
    pub fn unblock(&self, from: Host, to: Host) {
        self.shared.with(|state| state.net.release(&mut state.core, from, to, Hold::Block));
    }

    /// Cuts both directions between every machine of one group and every one of the other.
    pub fn partition(&self, one: &[Host], other: &[Host]) {
        for from in one {
            for to in other {
                self.block(*from, *to);
                self.block(*to, *from);
            }
        }
    }

    /// Cuts one machine off from all others.
    pub fn isolate(&self, host: Host) {
        let others: Vec<Host> = self.hosts().into_iter().filter(|other| *other != host).collect();
        self.partition(&[host], &others);
    }

    /// Cuts two groups off from each other, where every one of both still sees `bridge`.
    pub fn bridge(&self, one: &[Host], bridge: Host, other: &[Host]) {
        let sides = [one, other]
            .map(|side| side.iter().copied().filter(|host| *host != bridge).collect::<Vec<Host>>());
        self.partition(&sides[0], &sides[1]);
    }

    /// Leaves to each machine only its neighbours in the ring of `hosts`.
    pub fn ring(&self, hosts: &[Host]) {
        let count = hosts.len();
        for (i, from) in hosts.iter().enumerate() {
            for (j, to) in hosts.iter().enumerate() {
                let is_neighbour = (i + 1) % count == j || (j + 1) % count == i;
                if i != j && !is_neighbour {
                    self.block(*from, *to);
                }
            }
        }
    }

    /// Piles up what goes from one machine to another (N5).
    pub fn clog(&self, from: Host, to: Host) {
        self.shared.with(|state| state.net.hold(&mut state.core, from, to, Hold::Clog));
    }

    /// Lets through at once what has piled up.
    pub fn unclog(&self, from: Host, to: Host) {
        self.shared.with(|state| state.net.release(&mut state.core, from, to, Hold::Clog));
    }

    /// Tells whether something has piled up that would be let through now.
    pub fn has_piled_up(&self, from: Host, to: Host) -> bool {
        self.shared.with(|state| state.net.has_piled_up(from, to))
    }

    /// Clogs each machine with a chance of a half, at a random time in the first half of
    /// `length`, and unclogs it at a random time in the second half (N6). Takes `length`.
    pub async fn swizzle(&self, hosts: &[Host], length: Duration) {
        let start = self.shared.with(|state| state.core.now());
        let mut steps = Vec::new();
        for host in hosts {
            let drawn = self.shared.with(|state| state.net.draw_swizzle(nanos(length)));
            if let Some((clog_at, unclog_at)) = drawn {
                steps.push((clog_at, *host, true));
                steps.push((unclog_at, *host, false));
                self.shared.with(|state| {
                    state.core.faults.injected(Fault::N6);
                    state.core.faults.observed(Fault::N6);
                });
            }
        }
        steps.sort_unstable();
        for (at, host, is_clog) in steps {
            self.sleep_until(start + at).await;
            for other in self.hosts().into_iter().filter(|other| *other != host) {
                if is_clog {
                    self.clog(host, other);
                    self.clog(other, host);
                } else {
                    self.unclog(host, other);
                    self.unclog(other, host);
                }
            }
        }
        self.sleep_until(start + nanos(length)).await;
    }

    /// Undoes every cut, clog and added delay.
    pub fn heal_all(&self) {
        let hosts = self.hosts();
        for from in &hosts {
            for to in &hosts {
                self.unblock(*from, *to);
                self.unclog(*from, *to);
                self.delay(*from, *to, Duration::ZERO);
            }
        }
    }

    /// Adds a delay to everything that goes from one machine to another (N2); zero removes it.
    pub fn delay(&self, from: Host, to: Host, delay: Duration) {
        self.shared.with(|state| {
            if !delay.is_zero() {
                state.core.faults.injected(Fault::N2);
            }
            state.net.delay(from, to, nanos(delay));
        });
    }

    /// Breaks every connection between two machines (N7); returns how many had an end that was to
    /// be told and still there.
    pub fn reset_connections(&self, first: Host, second: Host, ends: Reset) -> usize {
        self.shared.with(|state| {
            let found = state.net.between(first, second).into_iter();
            found.filter(|(id, side)| state.net.reset(&mut state.core, *id, *side, ends)).count()
        })
    }

    /// Ends the direction `from` → `to` of every connection between two machines, as if the
    /// writer had shut it down (N7); returns how many there were.
    pub fn half_close(&self, from: Host, to: Host) -> usize {
        self.shared.with(|state| {
            let found = state.net.between(from, to);
            for (id, side) in &found {
                state.net.half_close(&mut state.core, *id, *side);
            }
            found.len()
        })
    }
}

/// What was durable on a disk at some time.
#[derive(Clone)]
pub struct KeptDisk(Arc<DiskState>);

impl fmt::Debug for KeptDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptDisk").finish_non_exhaustive()
    }
}

/// Disks.
impl World {
    /// Changes the options of one machine's disk.
    pub fn change_disk(&self, host: Host, change: impl FnOnce(&mut DiskOptions)) {
        self.shared.with(|state| change(&mut state.disk_of(host).options));
    }

    /// Freezes a disk for `duration` (D15): writes and syncs wait, reads do not.
    pub fn stall_disk(&self, host: Host, duration: Duration) {
        self.shared.with(|state| {
            let until = state.core.now().saturating_add(nanos(duration));
            state.disk_of(host).stall(until);
            state.core.faults.injected(Fault::D15);
            state.core.event(host, "disk.stall", (until, 0), || format!("for {duration:?}"));
        });
    }

    /// Returns how long the disk is still frozen that is so the longest; zero if none is.
    pub fn stall_left(&self) -> Duration {
        self.shared.with(|state| {
            let until = state.disks.values().map(DiskState::stalled_until).max().unwrap_or(0);
            Duration::from_nanos(until.saturating_sub(state.core.now()))
        })
    }

    /// Flips one durable bit (D10) in one of the first `reach(path)` bytes of a file; `None` if no
    /// file has durable bytes there.
    pub fn rot(&self, host: Host, reach: impl Fn(&str) -> u64, rng: &mut Rng) -> Option<Rot> {
        self.shared.with(|state| {
            let rot = state.disk_of(host).rot(reach, rng)?;
            state.core.faults.injected(Fault::D10);
            state.core.event(host, "disk.rot", (rot.offset, u64::from(rot.bit)), || {
                format!("{} byte {} bit {}", rot.path, rot.offset, rot.bit)
            });
            Some(rot)
        })
    }

    /// Loses the sector of a durable byte (D9) among the first `reach(path)` of a file; `None` if
    /// no file has durable bytes there.
    pub fn lose_sector(
        &self,
        host: Host,
        reach: impl Fn(&str) -> u64,
        rng: &mut Rng,
    ) -> Option<(String, u64)> {
        self.shared.with(|state| {
            let (path, offset) = state.disk_of(host).lose_sector(reach, rng)?;
            state.core.faults.injected(Fault::D9);
            state.core.event(host, "disk.sector", (offset, 0), || {
                format!("{path} cannot be read from byte {offset} on")
            });
            Some((path, offset))
        })
    }

    /// Returns the files of a machine: those that have a name, by name, then those that are open
    /// without one.
    pub fn files(&self, host: Host) -> Vec<FileState> {
        self.shared.with(|state| state.disk_of(host).files())
    }

    /// Reads at most `len` bytes of a file; nobody notices.
    pub fn peek(&self, host: Host, file: &FileState, offset: u64, len: usize) -> Vec<u8> {
        self.shared.with(|state| state.disk_of(host).peek(file.id, offset, len))
    }

    /// Flips a bit of one byte of a file (D10).
    ///
    /// # Panics
    /// If the file has no such byte: the scenario makes no sense then.
    pub fn rot_at(&self, host: Host, file: &FileState, offset: u64) {
        let is_done = self.shared.with(|state| {
            let is_done = state.disk_of(host).rot_at(file.id, offset);
            state.core.faults.injected(Fault::D10);
            state.core.event(host, "disk.rot", (offset, 0), || {
                format!("{:?} byte {offset} bit 0", file.path)
            });
            is_done
        });
        assert!(is_done, "{file:?} has no byte {offset}");
    }

    /// Loses the sector of one byte of a file (D9).
    ///
    /// # Panics
    /// If the file has no such byte: the scenario makes no sense then.
    pub fn lose_sector_at(&self, host: Host, file: &FileState, offset: u64) {
        let is_done = self.shared.with(|state| {
            let is_done = state.disk_of(host).lose_sector_at(file.id, offset);
            state.core.faults.injected(Fault::D9);
            state.core.event(host, "disk.sector", (offset, 1), || {
                format!("{:?} cannot be read around byte {offset}", file.path)
            });
            is_done
        });
        assert!(is_done, "{file:?} has no byte {offset}");
    }

    /// Tells whether a sync is under way on a machine: the best moment to take its power.
    pub fn disk_is_busy(&self, host: Host) -> bool {
        self.shared.with(|state| state.disk_of(host).is_busy())
    }

    /// Returns the bytes of all files of a machine, which count against its quota.
    pub fn disk_used_bytes(&self, host: Host) -> u64 {
        self.shared.with(|state| state.disk_of(host).used_bytes())
    }

    /// Returns how often the disk that a machine has now has refused something (D5, D7, D8, D9).
    pub fn disk_refused_count(&self, host: Host) -> u64 {
        self.shared.with(|state| state.disk_of(host).refused_count)
    }

    /// Gives a machine that is without process a new, empty disk (P7).
    pub fn wipe_disk(&self, host: Host) {
        self.assert_idle(host);
        self.shared.with(|state| {
            let (old, options) = (state.host(host).disk, state.disk_of(host).options.clone());
            let old = state.disks.remove(&old);
            let id = state.add_disk(host, options);
            state.host_mut(host).disk = id;
            state.note_exchange(old.as_ref(), id);
            state.core.faults.injected(Fault::P7);
            state.core.faults.observed(Fault::P7);
            state.core.event(host, "disk.wipe", (0, 0), String::new);
        });
    }

    /// Puts a directory named after a number onto the medium of a machine's disk, and tells
    /// nobody: only a look at the disk itself can notice it.
    pub fn dirty_disk(&self, host: Host, number: u64) {
        self.shared.with(|state| state.disk_of(host).dirty(number));
    }

    /// Keeps a copy of what is durable on a machine's disk, to be [put back](Self::restore_disk).
    pub fn keep_disk(&self, host: Host) -> KeptDisk {
        let kept = self.shared.with(|state| state.disk_of(host).durable_copy(DiskId(u64::MAX)));
        KeptDisk(Arc::new(kept))
    }

    /// Gives a machine that is without process a disk as it was once (P7), like somebody who
    /// restores a backup of a virtual machine.
    pub fn restore_disk(&self, host: Host, kept: &KeptDisk) {
        self.assert_idle(host);
        self.shared.with(|state| {
            let (old, options) = (state.host(host).disk, state.disk_of(host).options.clone());
            let gone = state.disks.remove(&old);
            let id = state.add_disk(host, options);
            if let Some(disk) = state.disks.get_mut(&id) {
                disk.fill_from(&kept.0);
            }
            state.host_mut(host).disk = id;
            state.note_exchange(gone.as_ref(), id);
            state.core.faults.injected(Fault::P7);
            state.core.faults.observed(Fault::P7);
            state.core.event(host, "disk.restore", (old.0, id.0), String::new);
        });
    }

    /// Swaps the disks of two machines that are without process (P7).
    pub fn swap_disks(&self, one: Host, other: Host) {
        self.assert_idle(one);
        self.assert_idle(other);
        self.shared.with(|state| {
            let disks = (state.host(one).disk, state.host(other).disk);
            state.host_mut(one).disk = disks.1;
            state.host_mut(other).disk = disks.0;
            state.core.faults.injected(Fault::P7);
            state.core.faults.observed(Fault::P7);
            state.core.event(one, "disk.swap", (disks.0.0, disks.1.0), String::new);
        });
    }

    fn assert_idle(&self, host: Host) {
        assert!(!self.is_running(host), "{} still runs a process", self.name(host));
    }

    /// Returns a copy of what a strict power loss would leave of a machine's disk now.
    ///
    /// It belongs to the caller: whatever is written to it stays there, takes no time and never
    /// fails, so that a checker can run a real recovery on it.
    pub fn durable_view(&self, host: Host) -> SimDisk {
        self.view(host, DiskState::durable_copy)
    }

    /// Returns the same of what would be left if the processes of a machine died now.
    pub fn written_view(&self, host: Host) -> SimDisk {
        self.view(host, DiskState::written_copy)
    }

    fn view(&self, host: Host, copy: impl FnOnce(&DiskState, DiskId) -> DiskState) -> SimDisk {
        let view = self.shared.with(|state| {
            let view = DiskId(state.disk_count);
            state.disk_count += 1;
            let copy = copy(state.disk_of(host), view);
            state.disks.insert(view, copy);
            view
        });
        SimDisk::view(&self.shared, view, Fence { host, incarnation: Fence::OBSERVER })
    }

    /// Returns an environment for a checker, with the clock of a machine and a view of its disk.
    /// Its tasks are not of any process and nothing kills them.
    pub fn observer(&self, host: Host, disk: SimDisk) -> SimEnv {
        let process = Arc::clone(&self.shared.observers);
        let fence = Fence { host, incarnation: Fence::OBSERVER };
        SimEnv::new(&self.shared, fence, process, Rng::new(0), disk)
    }

    /// Returns a hash over every durable name and byte of a machine's disk.
    pub fn durable_hash(&self, host: Host) -> u64 {
        self.shared.with(|state| state.disk_of(host).durable_hash())
    }
}

/// All of it.
impl World {
    /// Switches off every fault that happens by chance, undoes all that holds the network, and
    /// makes clocks and disks healthy, offsets of clocks and quotas excepted.
    pub fn calm(&self) {
        self.heal_all();
        self.set_timer_late_max(Duration::ZERO);
        self.shared.with(|state| {
            let net = &mut state.net.options;
            for link in [&mut net.servers, &mut net.clients] {
                *link = LinkOptions { latency: link.latency, ..LinkOptions::default() };
            }
            for disk in state.disks.values_mut() {
                let DiskOptions { sync_time, write_time, quota_bytes, .. } = disk.options;
                disk.options =
                    DiskOptions { sync_time, write_time, quota_bytes, ..DiskOptions::default() };
            }
        });
    }

    /// Takes the power away from every server at the same instant (P4).
    pub fn power_off_servers(&self, loss: PowerLoss) {
        let servers = self.shared.with(|state| state.net.servers());
        self.power_off_all(&servers, loss);
    }
}
