//! The patterns of catalog calls: `%` is any text, `_` any one character, and a backslash (the
//! search-string escape that `SqlInfo` names) makes the next character stand for itself.

/// Whether `text` matches; no pattern matches everything.
pub(super) fn matches(pattern: Option<&str>, text: &str) -> bool {
    let Some(pattern) = pattern else { return true };
    let pattern = tokens(pattern);
    let text: Vec<char> = text.chars().collect();
    // Greedy with one point to come back to: the newest `%` and where its text began.
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Token::Any) => {
                retry = Some((p, t));
                p += 1;
            }
            Some(Token::One) => (p, t) = (p + 1, t + 1),
            Some(Token::Just(c)) if *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((any, from)) = retry else {
                    return false;
                };
                retry = Some((any, from + 1));
                (p, t) = (any + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|token| matches!(token, Token::Any))
}

enum Token {
    Any,
    One,
    Just(char),
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        tokens.push(match c {
            '%' => Token::Any,
            '_' => Token::One,
            // A trailing backslash has nothing to escape and stands for itself.
            '\\' => Token::Just(characters.next().unwrap_or('\\')),
            c => Token::Just(c),
        });
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn wildcards_and_escapes() {
        let cases = [
            ("%", "", true),
            ("%", "anything", true),
            ("", "", true),
            ("", "a", false),
            ("a_c", "abc", true),
            ("a_c", "ac", false),
            ("a\\_c", "abc", false),
            ("a\\_c", "a_c", true),
            ("a\\%", "a%", true),
            ("a\\%", "ab", false),
            ("%b%d", "abcbd", true),
            ("%b%d", "abc", false),
            ("feature\\_store", "feature_store", true),
            ("Ä_", "Äö", true),
            ("A", "a", false),
            ("a\\", "a\\", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                matches(Some(pattern), text),
                expected,
                "{pattern} on {text}"
            );
        }
        assert!(matches(None, "x"));
    }
}
