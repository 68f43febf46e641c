//! A set of rows of one block: which are settled.

/// Row numbers below a fixed length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowSet {
    words: Vec<u64>,
    length: usize,
    count: usize,
}

impl RowSet {
    pub(super) fn none(length: usize) -> Self {
        Self {
            words: vec![0; length.div_ceil(64)],
            length,
            count: 0,
        }
    }

    pub(super) fn all(length: usize) -> Self {
        let mut set = Self::none(length);
        for row in 0..length {
            set.insert(row);
        }
        set
    }

    /// False when it is there already, or beyond the length.
    pub(super) fn insert(&mut self, row: usize) -> bool {
        if row >= self.length || self.contains(row) {
            return false;
        }
        self.words[row / 64] |= 1 << (row % 64);
        self.count += 1;
        true
    }

    pub(super) fn contains(&self, row: usize) -> bool {
        row < self.length && self.words[row / 64] & (1 << (row % 64)) != 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.count == self.length
    }

    pub(super) fn missing(&self) -> usize {
        self.length - self.count
    }

    /// Empty for a full set.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        if self.is_full() {
            return Vec::new();
        }
        self.words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }

    /// `None` when `bytes` are not of a set of this length.
    pub(super) fn from_bytes(bytes: &[u8], length: usize) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::all(length));
        }
        let (words, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() || words.len() != length.div_ceil(64) {
            return None;
        }
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let count = words.iter().map(|word| word.count_ones() as usize).sum();
        Some(Self {
            words,
            length,
            count,
        })
    }
}
