//! Runs of the masterless mode: what they have that those of the primary-backup mode have not.
//!
//! The world, the nemesis, the cluster and the client processes are shared. What differs is drawn
//! here ([`options`]), looked at here ([`disks`]) and judged here ([`phases`]): a run ends when the
//! replicas have become equal by the *one* mechanism that it is about, and how long that took is
//! part of its report.

#[cfg(madsim)]
pub mod disks;
pub mod options;
#[cfg(madsim)]
pub mod phases;
