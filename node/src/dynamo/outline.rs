//! Pages of a partition, compared without their values.
