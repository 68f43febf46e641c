//! What happens to the customers of a small web shop in two weeks of January 2026, quarter of an
//! hour by quarter of an hour, and when each version of it reaches the offline store.
//!
//! The parts that make time hard, each of which the tour shows:
//! - **late rows**: twice a day the credit bureau sends corrections that were true 6 to 30 hours
//!   earlier, and closures that came by letter are entered then too;
//! - **tombstones**: customers with open complaints close their accounts; some come back;
//! - **duplicates**: one order in seventy is sent twice, and on 12 January a fault writes amounts
//!   in cents for two hours, which the next morning's replay corrects under the same event times;
//! - **a new feature**: `ModelVersion` of `card-risk` is absent from the first week's files.

mod card_risk;
mod customers;
mod orders;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::definition::{CARD_RISK, CUSTOMERS, Definition, ORDERS};
use super::file::Writer;
use super::random::Random;
use super::version::{DAY, HOUR, MINUTE, SECOND, Version};

/// 2026-01-05T00:00:00Z, a Monday.
pub(super) const START: i64 = 1_767_571_200 * SECOND;

/// When order amounts were written in cents, and when their replay corrected them.
pub(super) const FAULT: (i64, i64) = (START + 7 * DAY + 12 * HOUR, START + 7 * DAY + 14 * HOUR);
const REPLAY: i64 = START + 8 * DAY + 8 * HOUR;

const TICK: i64 = 15 * MINUTE;
const TICKS_PER_DAY: u32 = 96;

/// How busy each hour of a day is; the sum is 96, so that the mean is 1 per tick.
const BUSY: [u32; 24] = [
    1, 1, 1, 1, 1, 2, 3, 4, 5, 5, 5, 5, 6, 6, 5, 5, 5, 6, 7, 7, 6, 4, 3, 2,
];

/// How large the story is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Scale {
    pub customers: u32,
    pub days: u32,
}

impl Default for Scale {
    /// About a million versions.
    fn default() -> Self {
        Self {
            customers: 60_000,
            days: 14,
        }
    }
}

/// Versions that reach the store at one moment, from one writer.
#[derive(Debug)]
pub(super) struct Flush {
    pub(super) definition: &'static Definition,
    pub(super) writer: Writer,
    /// Microseconds; the service's are whole milliseconds.
    pub(super) write_time: i64,
    pub(super) rows: Vec<Version>,
}

/// One customer as the shop knows them.
#[derive(Debug, Default)]
struct Customer {
    account: Account,
    /// Complains more than others.
    unhappy: bool,
    age: u32,
    segment: &'static str,
    city: Option<&'static str>,
    loyalty_points: u32,
    credit_limit_cents: Option<u32>,
    open_tickets: u32,
    /// Event time of the newest version, late ones excepted.
    changed: i64,
    /// Time and cents of recent orders.
    orders: VecDeque<(i64, u32)>,
    ordered: Option<i64>,
    devices: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Account {
    #[default]
    None,
    Open,
    /// With the moment at which the customer comes back, if ever.
    Closed(Option<i64>),
}

/// Customers in whose history a part of the story can be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Examples {
    /// The last one who ordered while amounts were written in cents.
    pub overcharged: Option<String>,
    /// The first one who left and came back.
    pub returned: Option<Returned>,
}

/// A customer who left and came back, with both moments in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Returned {
    pub customer_id: String,
    pub left: i64,
    pub returned: i64,
}

/// The shop, its clock, and what waits to be written.
#[derive(Debug)]
pub(super) struct Story {
    scale: Scale,
    random: Random,
    tick: u32,
    customers: Vec<Customer>,
    /// How many of the customers have signed up, from the front.
    known: usize,
    profiles: Vec<Version>,
    late_profiles: Vec<Version>,
    /// Closures that came by letter and are not entered yet.
    letters: Vec<Version>,
    orders: Vec<Version>,
    replay: Vec<Version>,
    scores: Vec<Version>,
    examples: Examples,
}

impl Story {
    pub(super) fn new(scale: Scale) -> Self {
        let mut random = Random::new(0xFEA7_F117);
        let customers = (0..scale.customers)
            .map(|_| customers::meet(&mut random))
            .collect();
        Self {
            scale,
            random,
            tick: 0,
            customers,
            known: 0,
            profiles: Vec::new(),
            late_profiles: Vec::new(),
            letters: Vec::new(),
            orders: Vec::new(),
            replay: Vec::new(),
            scores: Vec::new(),
            examples: Examples::default(),
        }
    }

    pub(super) fn examples(&self) -> &Examples {
        &self.examples
    }

    /// Quarter hours done, and of how many.
    pub(super) fn progress(&self) -> (u32, u32) {
        (self.tick, self.scale.days * TICKS_PER_DAY)
    }

    /// The next quarter of an hour, and what reached the store in it; `None` at the end.
    pub(super) fn advance(&mut self) -> Option<Vec<Flush>> {
        let (tick, ticks) = self.progress();
        if tick >= ticks {
            return None;
        }
        let from = START + i64::from(tick) * TICK;
        let hour = tick / 4 % 24;
        let first_of_hour = tick % 4 == 0;
        let mut flushes = Vec::new();
        if tick == 0 {
            flushes.push(self.import_customers());
        }
        self.sign_up(from);
        self.come_back(from);
        self.change_profiles(from, hour);
        self.place_orders(from, hour);
        if first_of_hour && hour == 2 {
            flushes.push(self.score_nightly(from));
        }
        if first_of_hour && matches!(hour, 6 | 18) {
            self.correct_credit(from);
        }
        if from == REPLAY {
            self.orders.append(&mut self.replay);
        }
        flushes.extend(self.flush(from + TICK, tick % 2 == 1));
        self.tick += 1;
        Some(flushes)
    }

    /// Orders reach the store every quarter, the others every half hour.
    fn flush(&mut self, until: i64, all: bool) -> Vec<Flush> {
        let mut flushes = vec![(&ORDERS, std::mem::take(&mut self.orders))];
        if all {
            flushes.push((&CUSTOMERS, std::mem::take(&mut self.profiles)));
            flushes.push((&CUSTOMERS, std::mem::take(&mut self.late_profiles)));
            flushes.push((&CARD_RISK, std::mem::take(&mut self.scores)));
        }
        flushes
            .into_iter()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(definition, rows)| {
                let delay = i64::from(self.random.between(60_000, 180_000)) * 1000;
                Flush {
                    definition,
                    writer: Writer::Service,
                    write_time: until + delay,
                    rows,
                }
            })
            .collect()
    }

    /// How many of `per_day` events fall into a quarter of `hour`.
    fn quota(&mut self, per_day: u32, hour: u32) -> u32 {
        let scaled = per_day * BUSY[hour as usize % 24];
        let rest = scaled % TICKS_PER_DAY;
        // Spread over the four quarters of the hour.
        let per_hour = scaled / TICKS_PER_DAY + u32::from(self.random.below(TICKS_PER_DAY) < rest);
        per_hour / 4 + u32::from(self.random.below(4) < per_hour % 4)
    }

    /// `count` moments of the tick that begins at `from`, in order, to the millisecond.
    fn moments(&mut self, from: i64, count: u32) -> Vec<i64> {
        let mut moments: Vec<_> = (0..count)
            .map(|_| from + i64::from(self.random.below(900_000)) * 1000)
            .collect();
        moments.sort_unstable();
        moments
    }

    /// A customer with an open account; `None` when the one drawn has none.
    fn draw(&mut self) -> Option<usize> {
        let known = u32::try_from(self.known).unwrap_or(u32::MAX);
        let at = self.random.below(known) as usize;
        self.customers
            .get(at)
            .filter(|customer| customer.account == Account::Open)
            .map(|_| at)
    }

    /// When the service hears of something that happened at `time`: whole seconds, a little later.
    fn heard(&mut self, time: i64) -> i64 {
        floor(time, SECOND) + i64::from(self.random.between(1, 3)) * SECOND
    }
}

fn floor(time: i64, unit: i64) -> i64 {
    time - time.rem_euclid(unit)
}
