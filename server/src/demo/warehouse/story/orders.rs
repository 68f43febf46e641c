//! Orders and the statistics that roll over them.

use super::super::version::{DAY, SECOND, Value, Version, customer_id, euros, iso, name};
use super::{FAULT, Story};

const CATEGORIES: [&str; 8] = [
    "books",
    "groceries",
    "groceries",
    "electronics",
    "clothing",
    "garden",
    "toys",
    "clothing",
];

impl Story {
    /// Seven customers in ten order on a day; a third of the orders has its card scored.
    pub(super) fn place_orders(&mut self, from: i64, hour: u32) {
        let count = self.quota(self.scale.customers * 7 / 10, hour);
        for moment in self.moments(from, count) {
            let Some(at) = self.draw() else { continue };
            if self.random.chance(300) {
                self.score(at, moment);
            }
            let order = self.order(at, moment);
            // The sender was told nothing in time and tries again.
            let twice = self.random.chance(14);
            if !twice && (FAULT.0..FAULT.1).contains(&moment) {
                self.examples.overcharged = Some(name(at));
            }
            if twice {
                let mut again = order.clone();
                again.api_invocation_time += i64::from(self.random.between(2, 40)) * SECOND;
                self.orders.push(again);
            }
            self.orders.push(order);
        }
    }

    fn order(&mut self, at: usize, moment: i64) -> Version {
        let heard = self.heard(moment);
        let cents = 500 + self.random.below(80) * self.random.below(250);
        let category = self.random.pick(&CATEGORIES);
        let customer = &mut self.customers[at];
        while customer
            .orders
            .front()
            .is_some_and(|(time, _)| *time <= moment - 7 * DAY)
        {
            customer.orders.pop_front();
        }
        customer.orders.push_back((moment, cents));
        let since = customer
            .ordered
            .replace(moment)
            .map_or(Value::Null, |before| days(moment - before));
        let spent = customer.orders.iter().map(|(_, cents)| cents).sum();
        let count = i64::try_from(customer.orders.len()).unwrap_or(i64::MAX);
        let mut version = Version {
            customer: at,
            event_time: moment,
            api_invocation_time: heard,
            is_deleted: false,
            values: vec![
                customer_id(at),
                iso(moment, true),
                Value::Integral(count),
                euros(spent),
                euros(cents),
                Value::Name(category),
                since,
            ],
        };
        if (FAULT.0..FAULT.1).contains(&moment) {
            let mut right = version.clone();
            right.api_invocation_time = super::REPLAY + i64::from(self.random.below(600)) * SECOND;
            self.replay.push(right);
            version.values[4] = Value::Fractional(f64::from(cents));
        }
        version
    }
}

/// Days to four digits.
fn days(micros: i64) -> Value {
    let ten_thousandths = micros / (DAY / 10_000);
    // Two weeks are far below 2^31 ten-thousandths of a day.
    let ten_thousandths = i32::try_from(ten_thousandths).unwrap_or(i32::MAX);
    Value::Fractional(f64::from(ten_thousandths) / 10_000.0)
}
