//! `SplitMix64`: a small generator whose numbers are the same on every machine and in every build,
//! so that everyone's sample warehouse is the same.

/// A stream of numbers fixed by its seed.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to `bound - 1`; 0 for a bound of 0.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        let scaled = (self.next() >> 32) * u64::from(bound);
        // Less than `bound`, since the factor is less than 2^32.
        u32::try_from(scaled >> 32).unwrap_or(0)
    }

    /// `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.below(high - low + 1)
    }

    /// True in `per_mille` of 1000 cases.
    pub(super) fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1000) < per_mille
    }

    /// One of `choices`.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T; 8]) -> T {
        choices[self.below(8) as usize]
    }

    /// `letters` characters out of A to Z and 0 to 9.
    pub(super) fn name(&mut self, letters: usize) -> String {
        const ALPHABET: &[u8; 36] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        (0..letters)
            .map(|_| char::from(ALPHABET[self.below(36) as usize]))
            .collect()
    }
}
