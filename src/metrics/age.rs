//! A gauge of how long ago something was: read when it is asked for, so that it goes on growing while nothing comes.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
    registry::Unit,
};

/// Writes the gauge `carillon_<name>_seconds`.
///
/// # Errors
/// Those of the encoder.
pub(super) fn encode_age(
    mut encoder: DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    age: Duration,
) -> Result<(), fmt::Error> {
    let age = ConstGauge::new(age.as_secs_f64());
    age.encode(encoder.encode_descriptor(name, help, Some(&Unit::Seconds), age.metric_type())?)
}

/// Reads such a gauge, in seconds, out of all figures. `None`: it is not told.
#[cfg(test)]
pub(super) fn read_age(metrics: &super::Metrics, name: &str) -> Option<f64> {
    let (text, begins) = (metrics.text(), format!("carillon_{name}_seconds "));
    let age = text.lines().find_map(|line| line.strip_prefix(&begins))?;
    Some(age.parse().expect("a number"))
}
