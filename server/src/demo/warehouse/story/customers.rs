//! Profiles: the import on the first day, sign-ups, changes, closures, returns, and the credit
//! bureau's late corrections.

use super::super::definition::CUSTOMERS;
use super::super::file::Writer;
use super::super::random::Random;
use super::super::version::{
    DAY, HOUR, MINUTE, SECOND, Value, Version, customer_id, euros, iso, name,
};
use super::{Account, Customer, Flush, Returned, START, Story, floor};

const CITIES: [Option<&str>; 8] = [
    Some("Amsterdam"),
    Some("Berlin"),
    Some("Dublin"),
    Some("Lisbon"),
    Some("Lyon"),
    Some("Oslo"),
    Some("Vienna"),
    None,
];

/// A customer before they sign up.
pub(super) fn meet(random: &mut Random) -> Customer {
    Customer {
        unhappy: random.chance(80),
        age: random.between(18, 84),
        segment: "bronze",
        city: random.pick(&CITIES),
        loyalty_points: random.below(400),
        credit_limit_cents: random.chance(900).then(|| random.between(2, 60) * 10_000),
        devices: random.between(1, 3),
        ..Customer::default()
    }
}

/// One version of the customer's profile as it is now.
fn profile(at: usize, customer: &Customer, event_time: i64, heard: i64, millis: bool) -> Version {
    let Customer {
        age,
        segment,
        city,
        loyalty_points,
        credit_limit_cents,
        open_tickets,
        ..
    } = customer;
    Version {
        customer: at,
        event_time,
        api_invocation_time: heard,
        is_deleted: false,
        values: vec![
            customer_id(at),
            iso(event_time, millis),
            Value::Integral(i64::from(*age)),
            Value::Name(segment),
            city.map_or(Value::Null, Value::Name),
            Value::Integral(i64::from(*loyalty_points)),
            credit_limit_cents.map_or(Value::Null, euros),
            Value::Integral(i64::from(*open_tickets)),
        ],
    }
}

/// The marker the service writes for a deletion: identifier and event time, the rest null.
fn tombstone(at: usize, event_time: i64, heard: i64) -> Version {
    let mut values = vec![Value::Null; CUSTOMERS.features.len()];
    values[0] = customer_id(at);
    values[1] = iso(event_time, true);
    Version {
        customer: at,
        event_time,
        api_invocation_time: heard,
        is_deleted: true,
        values,
    }
}

impl Story {
    /// Four fifths of the customers existed before the feature group: at midnight a Spark job brings
    /// them, with the times of the evening at which another system had checked their profiles, and
    /// stamps all of them alike.
    pub(super) fn import_customers(&mut self) -> Flush {
        self.known = self.customers.len() * 4 / 5;
        let write_time = START + 4 * MINUTE + 17_123_456;
        let mut rows = Vec::with_capacity(self.known);
        for at in 0..self.known {
            let checked = START - 6 * HOUR + i64::from(self.random.below(6 * 3600)) * SECOND;
            let customer = &mut self.customers[at];
            customer.account = Account::Open;
            customer.changed = checked;
            rows.push(profile(at, customer, checked, write_time, false));
        }
        Flush {
            definition: &CUSTOMERS,
            writer: Writer::Spark,
            write_time,
            rows,
        }
    }

    /// The rest sign up in the course of the story.
    pub(super) fn sign_up(&mut self, from: i64) {
        let (tick, ticks) = self.progress();
        let newcomers = self.customers.len() - self.customers.len() * 4 / 5;
        let due = newcomers * (tick as usize + 1) / ticks as usize;
        let target = self.customers.len() * 4 / 5 + due;
        let count = u32::try_from(target.saturating_sub(self.known)).unwrap_or(0);
        for moment in self.moments(from, count) {
            self.open(self.known, moment);
            self.known += 1;
        }
    }

    /// Some of those who left return, with a clean slate.
    pub(super) fn come_back(&mut self, from: i64) {
        let until = from + super::TICK;
        for at in 0..self.known {
            if let Account::Closed(Some(moment)) = self.customers[at].account
                && (from..until).contains(&moment)
            {
                let customer = &mut self.customers[at];
                customer.open_tickets = 0;
                let (left, returned) = (customer.changed, moment);
                self.examples.returned.get_or_insert_with(|| Returned {
                    customer_id: name(at),
                    left,
                    returned,
                });
                self.open(at, moment);
            }
        }
    }

    fn open(&mut self, at: usize, moment: i64) {
        let heard = self.heard(moment);
        let customer = &mut self.customers[at];
        customer.account = Account::Open;
        customer.changed = moment;
        self.profiles
            .push(profile(at, customer, moment, heard, true));
    }

    /// A fifth of the customers changes something on a day; complaints drive some away.
    pub(super) fn change_profiles(&mut self, from: i64, hour: u32) {
        let count = self.quota(self.scale.customers / 5, hour);
        for moment in self.moments(from, count) {
            let Some(at) = self.draw() else { continue };
            // The shop's own application writes milliseconds, its call centre whole seconds. The
            // instants of a customer's changes are distinct, as people are that slow.
            let millis = self.random.chance(600);
            let moment = if millis {
                moment
            } else {
                floor(moment, SECOND)
            };
            let moment = moment.max(self.customers[at].changed + SECOND);
            let leaves = self.customers[at].open_tickets >= 4 && self.random.chance(300)
                || self.random.chance(2);
            if leaves {
                self.close(at, moment);
            } else {
                self.change(at, moment, millis);
            }
        }
    }

    fn close(&mut self, at: usize, moment: i64) {
        let back = self
            .random
            .chance(150)
            .then(|| moment + DAY + i64::from(self.random.below(3 * 24 * 3600)) * SECOND);
        let customer = &mut self.customers[at];
        customer.account = Account::Closed(back);
        customer.changed = moment;
        let heard = self.heard(moment);
        let marker = tombstone(at, moment, heard);
        if self.random.chance(100) {
            self.letters.push(marker);
        } else {
            self.profiles.push(marker);
        }
    }

    fn change(&mut self, at: usize, moment: i64, millis: bool) {
        let heard = self.heard(moment);
        let random = &mut self.random;
        let customer = &mut self.customers[at];
        customer.changed = moment;
        customer.loyalty_points += random.below(60);
        customer.segment = match customer.loyalty_points {
            0..300 => "bronze",
            300..420 => "silver",
            _ => "gold",
        };
        if random.chance(50) {
            customer.city = random.pick(&CITIES);
        }
        let complaint = if customer.unhappy {
            random.below(4)
        } else {
            u32::from(random.chance(150))
        };
        let answered = u32::from(random.chance(500)).min(customer.open_tickets);
        customer.open_tickets += complaint;
        customer.open_tickets -= answered;
        let version = profile(at, customer, moment, heard, millis);
        self.profiles.push(version);
    }

    /// The credit bureau's corrections: true since 6 to 30 hours ago, heard of only now.
    pub(super) fn correct_credit(&mut self, now: i64) {
        for mut marker in std::mem::take(&mut self.letters) {
            marker.api_invocation_time = now + i64::from(self.random.below(300)) * SECOND;
            self.late_profiles.push(marker);
        }
        for _ in 0..self.scale.customers / 300 {
            let since = now - 6 * HOUR - i64::from(self.random.below(24 * 3600)) * SECOND;
            let Some(at) = self.draw() else { continue };
            if since < START {
                continue;
            }
            let customer = &mut self.customers[at];
            customer.credit_limit_cents = Some(self.random.between(2, 60) * 10_000);
            let heard = now + i64::from(self.random.below(300)) * SECOND;
            let since = floor(since, SECOND) + SECOND / 2;
            let version = profile(at, &self.customers[at], since, heard, true);
            self.late_profiles.push(version);
        }
    }
}
