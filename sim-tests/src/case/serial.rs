//! How times and levels stand in a replay file.

/// A duration as a number of milliseconds, exact to the nanosecond.
pub(crate) mod ms {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    /// Returns a duration in milliseconds.
    pub(crate) fn number(duration: Duration) -> f64 {
        let nanos = duration.as_nanos();
        let text = format!("{}.{:06}", nanos / 1_000_000, nanos % 1_000_000);
        text.parse().unwrap_or(f64::MAX)
    }

    /// Returns the duration of so many milliseconds, if there can be one.
    pub(crate) fn duration(number: f64) -> Option<Duration> {
        let text = format!("{number:.6}");
        let (millis, nanos) = text.split_once('.')?;
        let millis = Duration::from_millis(millis.parse().ok()?);
        Some(millis + Duration::from_nanos(nanos.parse().ok()?))
    }

    pub(crate) fn serialize<S: Serializer>(of: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(number(*of))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let number = f64::deserialize(from)?;
        duration(number).ok_or_else(|| D::Error::custom(format!("{number} ms is no duration")))
    }
}

/// Several durations.
pub(crate) mod list_ms {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::ms;

    pub(crate) fn serialize<S: Serializer>(of: &[Duration], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(of.iter().map(|one| ms::number(*one)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Duration>, D::Error> {
        let numbers = Vec::<f64>::deserialize(from)?;
        let all: Option<Vec<Duration>> = numbers.into_iter().map(ms::duration).collect();
        all.ok_or_else(|| D::Error::custom("not every number is a duration"))
    }
}

/// A level by its name.
pub(crate) mod level {
    use mangrove::dynamo::Level;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    const NAMES: [(Level, &str); 5] = [
        (Level::One, "one"),
        (Level::Two, "two"),
        (Level::Three, "three"),
        (Level::Quorum, "quorum"),
        (Level::All, "all"),
    ];

    /// Returns the name of a level.
    pub(crate) fn name(level: Level) -> &'static str {
        NAMES.iter().find(|(known, _)| *known == level).map_or("quorum", |(_, name)| name)
    }

    #[expect(
        clippy::ref_option,
        clippy::trivially_copy_pass_by_ref,
        reason = "serde calls it with a reference to the field"
    )]
    pub(crate) fn serialize<S: Serializer>(of: &Option<Level>, to: S) -> Result<S::Ok, S::Error> {
        match of {
            Some(level) => to.serialize_some(name(*level)),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Level>, D::Error> {
        let Some(wanted) = Option::<String>::deserialize(from)? else { return Ok(None) };
        let level = NAMES.iter().find(|(_, name)| **name == wanted).map(|(level, _)| *level);
        level.map(Some).ok_or_else(|| D::Error::custom(format!("{wanted:?} is no level")))
    }
}
