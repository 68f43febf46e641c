//! Risk scores: at checkout through the service, and every night by a Spark job.

use super::super::definition::CARD_RISK;
use super::super::file::Writer;
use super::super::version::{MINUTE, SECOND, Value, Version, customer_id, unix_seconds};
use super::{Flush, Story};

impl Story {
    pub(super) fn score(&mut self, at: usize, moment: i64) {
        let heard = self.heard(moment);
        let version = self.scored(at, moment, heard);
        self.scores.push(version);
    }

    /// A twentieth of the customers, in one job with one stamp to the microsecond.
    pub(super) fn score_nightly(&mut self, from: i64) -> Flush {
        let write_time = from + 52 * MINUTE + 31_000_000 + i64::from(self.random.below(1_000_000));
        let mut rows = Vec::new();
        for moment in self.moments(from, self.scale.customers / 20) {
            let Some(at) = self.draw() else { continue };
            rows.push(self.scored(at, moment, write_time));
        }
        Flush {
            definition: &CARD_RISK,
            writer: Writer::Spark,
            write_time,
            rows,
        }
    }

    fn scored(&mut self, at: usize, moment: i64, heard: i64) -> Version {
        let random = &mut self.random;
        let customer = &mut self.customers[at];
        if random.chance(10) {
            customer.devices += 1;
        }
        let declines = if random.chance(60) {
            random.between(1, 4)
        } else {
            0
        };
        let risk = random.below(300) + declines * 120 + customer.devices * 40;
        let risk = risk.min(1000);
        let band = match risk {
            0..300 => "low",
            300..600 => "medium",
            _ => "high",
        };
        let second = moment / SECOND >= CARD_RISK.added_at;
        Version {
            customer: at,
            event_time: moment,
            api_invocation_time: heard,
            is_deleted: false,
            values: vec![
                customer_id(at),
                unix_seconds(moment),
                Value::Fractional(f64::from(risk) / 1000.0),
                Value::Name(band),
                Value::Integral(i64::from(declines)),
                Value::Integral(i64::from(customer.devices)),
                Value::Name(if second { "risk-2" } else { "risk-1" }),
            ],
        }
    }
}
