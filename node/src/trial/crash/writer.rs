//! One writer of a crash test: writes, remembers what it was promised, and now and then looks.

use std::cell::Cell;

use super::ledger::{Content, Slot, value_of};
use super::{Tally, Violation};
use crate::base::{Column, Key, Rng};
use crate::client::{BatchBuilder, Client, ClientError};
use crate::env::real::RealEnv;

/// Slots that a writer uses in turn: single cells, and groups that are written in bulk.
const CELLS: usize = 24;
const GROUPS: usize = 6;

/// Cells of a group.
const GROUP_CELLS: u64 = 6;

/// Bytes of a value: most are small, some are large enough to fill a block of a table.
const SMALL_BYTES: u64 = 120;
const LARGE_BYTES: u64 = 9_000;
const LARGE_SHARE: f64 = 0.03;

const DELETE_SHARE: f64 = 0.12;

/// Share of the acknowledged writes that are read back at once.
const READ_SHARE: f64 = 0.2;

/// Share of the writes that ask for the loss of what is written to tables, and how likely it is.
/// Every node is asked at the beginning of a round, too.
const LOSS_SHARE: f64 = 0.1;
pub(super) const LOSS_PROBABILITY: f64 = 0.5;

/// Cells asked for at once when everything is read back.
const READ_CELLS: usize = 120;

/// See the [module](self).
pub(super) struct Writer {
    name: String,
    client: Client<RealEnv>,
    /// One that waits for long: to read everything back.
    patient: Client<RealEnv>,
    rng: Rng,
    /// Whether the nodes can be asked to lose what they write to tables.
    with_losses: bool,
    slots: Vec<Slot>,
    /// Slots whose last write was in doubt.
    retired: Vec<Slot>,
    slot_count: u64,
    last_number: u64,
    pub(super) tally: Tally,
    pub(super) violations: Vec<Violation>,
}

impl Writer {
    pub(super) fn new(
        name: String,
        [client, patient]: [Client<RealEnv>; 2],
        rng: Rng,
        with_losses: bool,
    ) -> Self {
        let mut writer = Self {
            name,
            client,
            patient,
            rng,
            with_losses,
            slots: Vec::new(),
            retired: Vec::new(),
            slot_count: 0,
            last_number: 0,
            tally: Tally::default(),
            violations: Vec::new(),
        };
        writer.slots = (0..CELLS + GROUPS).map(|at| writer.new_slot(at >= CELLS)).collect();
        writer
    }

    fn new_slot(&mut self, is_group: bool) -> Slot {
        self.slot_count += 1;
        let slot = format!("{}/{:06}", self.name, self.slot_count);
        if is_group {
            // Keys that are far apart, so that they belong to different partitions and tables.
            Slot::new((0..GROUP_CELLS).map(|cell| format!("{cell}/{slot}")).collect())
        } else {
            Slot::new(vec![slot])
        }
    }

    /// Writes until it is told to stop; ends the last write first.
    pub(super) async fn write_until(&mut self, stop: &Cell<bool>) {
        while !stop.get() {
            let at = self.rng.index(self.slots.len());
            let Some(mut slot) = self.slots.get(at).cloned() else { continue };
            if slot.is_in_doubt() {
                let fresh = self.new_slot(slot.keys().len() > 1);
                self.retired.push(std::mem::replace(&mut slot, fresh));
            }
            self.write(&mut slot).await;
            if !slot.is_in_doubt() && self.rng.chance(READ_SHARE) {
                self.look(&mut slot).await;
            }
            if let Some(place) = self.slots.get_mut(at) {
                *place = slot;
            }
        }
    }

    async fn write(&mut self, slot: &mut Slot) {
        self.last_number += 1;
        let content = (!self.rng.chance(DELETE_SHARE)).then_some(self.last_number);
        let is_large = self.rng.chance(LARGE_SHARE);
        let bytes = self.rng.range(20, if is_large { LARGE_BYTES } else { SMALL_BYTES });
        let bytes = usize::try_from(bytes).unwrap_or(0);
        let loses = self.with_losses && self.rng.chance(LOSS_SHARE);
        let probability = if loses { LOSS_PROBABILITY } else { 0.0 };
        let client = self.client.with_debug_table_loss(probability);
        let written = send(&client, slot.keys(), content, bytes).await;
        let came_to = written.map_err(|error| error.outcome());
        self.tally.on_written(slot.keys().len() > 1, came_to);
        self.tally.loss_requests += u64::from(loses);
        slot.on_written(content, came_to);
    }

    /// Reads a slot right after it was written.
    async fn look(&mut self, slot: &mut Slot) {
        let Ok(found) = read(&self.client, slot.keys()).await else { return };
        self.tally.reads += 1;
        if let Err(wrong) = slot.judge(&found) {
            self.violations.push(Violation::new(wrong, slot, &found, "right after it was written"));
        }
    }

    /// Reads everything that was ever promised; returns which slots are wrong.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub(super) async fn check(&mut self) -> Result<Vec<Violation>, ClientError> {
        let mut wrong = Vec::new();
        let mut slots: Vec<&mut Slot> =
            self.slots.iter_mut().chain(self.retired.iter_mut()).collect();
        let mut rest = slots.as_mut_slice();
        while !rest.is_empty() {
            let mut keys = Vec::new();
            let mut taken = 0;
            for slot in rest.iter() {
                keys.extend_from_slice(slot.keys());
                taken += 1;
                if keys.len() >= READ_CELLS {
                    break;
                }
            }
            let found = read(&self.patient, &keys).await?;
            let mut found = found.as_slice();
            let (now, later) = rest.split_at_mut(taken);
            for slot in now {
                let (own, others) = found.split_at(slot.keys().len());
                found = others;
                self.tally.checked_cells += u64::try_from(own.len()).unwrap_or(0);
                if let Err(what) = slot.judge(own) {
                    wrong.push(Violation::new(what, slot, own, "after the nodes were back"));
                }
            }
            rest = later;
        }
        Ok(wrong)
    }
}

/// Writes all cells of a slot: one alone, several in one bulk write.
async fn send(
    client: &Client<RealEnv>,
    keys: &[String],
    content: Content,
    bytes: usize,
) -> Result<(), ClientError> {
    if let ([key], Some(number)) = (keys, content) {
        client.set(key.clone(), value_of(number, key, bytes)).await?;
        return Ok(());
    }
    if let ([key], None) = (keys, content) {
        client.delete(key.clone()).await?;
        return Ok(());
    }
    let mut batch = BatchBuilder::new();
    for key in keys {
        batch = match content {
            Some(number) => batch.set(key.clone(), value_of(number, key, bytes)),
            None => batch.delete(key.clone()),
        };
    }
    client.bulk_set(batch.build()?).await.map(|_version| ())
}

/// Reads cells, in the order of the keys.
async fn read(
    client: &Client<RealEnv>,
    keys: &[String],
) -> Result<Vec<Option<Vec<u8>>>, ClientError> {
    let cells = keys.iter().map(|key| Ok((Key::new(key.clone())?, Column::default())));
    let found = client.multi_get(cells.collect::<Result<_, ClientError>>()?).await?;
    Ok(found.into_iter().map(|cell| cell.map(|cell| cell.value.as_bytes().to_vec())).collect())
}
