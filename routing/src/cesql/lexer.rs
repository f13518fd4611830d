//! Tokens of CESQL (2.2 to 2.4), one at a time.

use std::borrow::Cow;

use super::ast::{Comparison, Connective};
use super::parser::Fault;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind<'t>,
    /// Bytes of the text.
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind<'t> {
    /// A word that is no keyword: an attribute or a function.
    Word(&'t str),
    /// Digits; [`u64::MAX`] for all that is larger.
    Integer(u64),
    /// What stands between quotes, escapes resolved.
    Text(Cow<'t, str>),
    Boolean(bool),
    Connective(Connective),
    Comparison(Comparison),
    Not,
    Like,
    In,
    Exists,
    Plus,
    Minus,
    Star,
    Slash,
    Percent,
    Open,
    Close,
    Comma,
    End,
}

impl Kind<'_> {
    /// The token in words. Names and literals are not repeated, for they may hold what not everybody may see.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Word(_) => "a name",
            Self::Integer(_) => "a number",
            Self::Text(_) => "a text",
            Self::Boolean(true) => "`TRUE`",
            Self::Boolean(false) => "`FALSE`",
            Self::Connective(Connective::And) => "`AND`",
            Self::Connective(Connective::Or) => "`OR`",
            Self::Connective(Connective::Xor) => "`XOR`",
            Self::Comparison(Comparison::Equal) => "`=`",
            Self::Comparison(Comparison::NotEqual) => "`!=`",
            Self::Comparison(Comparison::Less) => "`<`",
            Self::Comparison(Comparison::LessOrEqual) => "`<=`",
            Self::Comparison(Comparison::Greater) => "`>`",
            Self::Comparison(Comparison::GreaterOrEqual) => "`>=`",
            Self::Not => "`NOT`",
            Self::Like => "`LIKE`",
            Self::In => "`IN`",
            Self::Exists => "`EXISTS`",
            Self::Plus => "`+`",
            Self::Minus => "`-`",
            Self::Star => "`*`",
            Self::Slash => "`/`",
            Self::Percent => "`%`",
            Self::Open => "`(`",
            Self::Close => "`)`",
            Self::Comma => "`,`",
            Self::End => "the end",
        }
    }
}

/// The keyword that a word is, in any case.
pub(super) fn keyword(word: &str) -> Option<Kind<'static>> {
    const KEYWORDS: [(&str, Kind<'static>); 9] = [
        ("AND", Kind::Connective(Connective::And)),
        ("OR", Kind::Connective(Connective::Or)),
        ("XOR", Kind::Connective(Connective::Xor)),
        ("NOT", Kind::Not),
        ("LIKE", Kind::Like),
        ("IN", Kind::In),
        ("EXISTS", Kind::Exists),
        ("TRUE", Kind::Boolean(true)),
        ("FALSE", Kind::Boolean(false)),
    ];
    KEYWORDS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, kind)| kind)
}

pub(super) struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn next(&mut self) -> Result<Token<'t>, Fault> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        let start = self.at;
        let Some(first) = bytes.get(start) else { return Ok(Token { kind: Kind::End, start, end: start }) };
        let second = bytes.get(start + 1);
        let (kind, length) = match (first, second) {
            (b'(', _) => (Kind::Open, 1),
            (b')', _) => (Kind::Close, 1),
            (b',', _) => (Kind::Comma, 1),
            (b'+', _) => (Kind::Plus, 1),
            (b'-', _) => (Kind::Minus, 1),
            (b'*', _) => (Kind::Star, 1),
            (b'/', _) => (Kind::Slash, 1),
            (b'%', _) => (Kind::Percent, 1),
            (b'=', Some(b'=')) => return Err(Fault::new(start, "there is no operator `==`", "write `=`")),
            (b'=', _) => (Kind::Comparison(Comparison::Equal), 1),
            (b'!', Some(b'=')) | (b'<', Some(b'>')) => (Kind::Comparison(Comparison::NotEqual), 2),
            (b'<', Some(b'=')) => (Kind::Comparison(Comparison::LessOrEqual), 2),
            (b'<', _) => (Kind::Comparison(Comparison::Less), 1),
            (b'>', Some(b'=')) => (Kind::Comparison(Comparison::GreaterOrEqual), 2),
            (b'>', _) => (Kind::Comparison(Comparison::Greater), 1),
            (b'\'' | b'"', _) => self.quoted(*first)?,
            (byte, _) if byte.is_ascii_alphanumeric() => self.word(),
            _ => return Err(self.unknown()),
        };
        self.at = start + length;
        Ok(Token { kind, start, end: self.at })
    }

    /// Whether a `(` comes next, blanks left aside.
    pub(super) fn next_is_open(&self) -> bool {
        self.text[self.at..].trim_start_matches([' ', '\t', '\r', '\n']).starts_with('(')
    }

    fn word(&self) -> (Kind<'t>, usize) {
        let rest = &self.text[self.at..];
        let length = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let word = &rest[..length];
        let kind = if word.bytes().all(|byte| byte.is_ascii_digit()) {
            Kind::Integer(word.parse().unwrap_or(u64::MAX))
        } else {
            keyword(word).unwrap_or(Kind::Word(word))
        };
        (kind, length)
    }

    fn quoted(&self, quote: u8) -> Result<(Kind<'t>, usize), Fault> {
        let rest = &self.text[self.at..];
        let bytes = rest.as_bytes();
        let (mut at, mut from) = (1, 1);
        let mut resolved = String::new();
        loop {
            match (bytes.get(at), bytes.get(at + 1)) {
                (Some(b'\\'), Some(next)) if *next == quote => {
                    resolved.push_str(&rest[from..at]);
                    // The quote itself begins what is copied next.
                    from = at + 1;
                    at += 2;
                }
                // The pair keeps the quote behind two backslashes from being taken for an escaped one. Only a
                // backslash is skipped with it, so a character of many bytes stays whole.
                (Some(b'\\'), Some(b'\\')) => at += 2,
                (Some(byte), Some(next)) if *byte == quote && *next == quote => {
                    resolved.push_str(&rest[from..at]);
                    from = at + 1;
                    at += 2;
                }
                (Some(byte), _) if *byte == quote => break,
                (Some(_), _) => at += 1,
                (None, _) => {
                    return Err(Fault::new(
                        self.at,
                        "the text that begins here does not end",
                        "close it with the same quote; within it, write the quote with a backslash before it",
                    ));
                }
            }
        }
        let text = if from == 1 {
            Cow::Borrowed(&rest[1..at])
        } else {
            resolved.push_str(&rest[from..at]);
            Cow::Owned(resolved)
        };
        Ok((Kind::Text(text), at + 1))
    }

    fn unknown(&self) -> Fault {
        let rest = &self.text[self.at..];
        let character = rest.chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
        let mend = match character {
            '&' => "write `AND`",
            '|' => "write `OR`",
            '^' => "write `XOR`",
            '!' => "write `NOT`, or `!=` for a comparison",
            '.' => "numbers are whole, and only attributes of an event can be named, not what is in its data",
            '\u{2018}' | '\u{2019}' | '\u{201c}' | '\u{201d}' | '`' => "write straight quotes, `'` or `\"`",
            ';' => "an expression ends without a mark",
            '_' => "names begin with a letter, and those of attributes have letters and digits only",
            '[' | '{' => "a list stands in round parentheses",
            _ if character.is_whitespace() => "blanks are spaces, tabs and ends of lines",
            _ => "put text into quotes",
        };
        let what = if character.is_whitespace() || character.is_control() {
            format!("the character U+{:04X} means nothing here", u32::from(character))
        } else {
            format!("the character {character:?} means nothing here")
        };
        Fault::new(self.at, what, mend)
    }
}
