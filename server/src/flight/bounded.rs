//! A map that forgets: entries end by age, and when they weigh too much together the longest unused
//! go first.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug)]
pub(crate) struct Bounded<K, V> {
    capacity: usize,
    weight: usize,
    ttl: Duration,
    clock: u64,
    entries: HashMap<K, Entry<V>>,
    /// From last use to key, oldest first.
    order: BTreeMap<u64, K>,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: usize,
    added: Instant,
    last_use: u64,
}

impl<K: Clone + Eq + Hash, V> Bounded<K, V> {
    /// `capacity` is the most that entries may weigh together; one that is heavier alone is kept
    /// alone.
    pub(crate) fn new(capacity: usize, ttl: Duration) -> Self {
        Self {
            capacity,
            weight: 0,
            ttl,
            clock: 0,
            entries: HashMap::new(),
            order: BTreeMap::new(),
        }
    }

    pub(crate) fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        self.take_expired();
        while self.weight.saturating_add(weight) > self.capacity {
            let Some(oldest) = self.order.first_key_value().map(|(_, key)| key.clone()) else {
                break;
            };
            self.remove(&oldest);
        }
        let last_use = self.tick();
        self.order.insert(last_use, key.clone());
        self.weight = self.weight.saturating_add(weight);
        let entry = Entry {
            value,
            weight,
            added: Instant::now(),
            last_use,
        };
        self.entries.insert(key, entry);
    }

    /// Those that `wanted` says, taken out.
    pub(crate) fn take(&mut self, wanted: impl Fn(&V) -> bool) -> Vec<V> {
        self.remove_where(|entry| wanted(&entry.value))
    }

    /// The live value of `key`, now the most recently used.
    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        if self.entries.get(key)?.added.elapsed() >= self.ttl {
            self.remove(key);
            return None;
        }
        let now = self.tick();
        let entry = self.entries.get_mut(key)?;
        self.order.remove(&entry.last_use);
        self.order.insert(now, key.clone());
        entry.last_use = now;
        Some(&entry.value)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.last_use);
        self.weight = self.weight.saturating_sub(entry.weight);
        Some(entry.value)
    }

    /// Those that have ended by age, taken out: nobody may come who would find them gone.
    pub(crate) fn take_expired(&mut self) -> Vec<V> {
        let ttl = self.ttl;
        self.remove_where(|entry| entry.added.elapsed() >= ttl)
    }

    fn remove_where(&mut self, gone: impl Fn(&Entry<V>) -> bool) -> Vec<V> {
        let keys = self.entries.iter().filter(|(_, entry)| gone(entry));
        let keys: Vec<K> = keys.map(|(key, _)| key.clone()).collect();
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_goes_first() {
        let mut map = Bounded::new(2, Duration::from_secs(60));
        map.insert("a", 1, 1);
        map.insert("b", 2, 1);
        assert_eq!(map.get(&"a"), Some(&1));
        map.insert("c", 3, 1);
        assert_eq!(map.get(&"b"), None);
        assert_eq!(map.get(&"a"), Some(&1));
        assert_eq!(map.get(&"c"), Some(&3));
        assert_eq!(map.order.len(), map.entries.len());
    }

    #[test]
    fn entries_end_by_age() {
        let mut map = Bounded::new(2, Duration::ZERO);
        map.insert("a", 1, 1);
        assert_eq!(map.get(&"a"), None);
        assert!(map.entries.is_empty() && map.order.is_empty());
    }

    #[test]
    fn the_heavy_displace_the_light() {
        let mut map = Bounded::new(10, Duration::from_secs(60));
        map.insert("a", 1, 4);
        map.insert("b", 2, 4);
        map.insert("c", 3, 9);
        assert_eq!(map.get(&"a"), None);
        assert_eq!(map.get(&"b"), None);
        assert_eq!(map.get(&"c"), Some(&3));
        map.insert("d", 4, 100);
        assert_eq!(map.get(&"c"), None);
        assert_eq!(map.get(&"d"), Some(&4));
        assert_eq!(map.weight, 100);
        map.remove(&"d");
        assert_eq!(map.weight, 0);
    }
}
