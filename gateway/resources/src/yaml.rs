//! YAML as a tree that knows where each value and key stands, so that a reader can tell every fault with its line.
//!
//! Only what a resource needs is read: maps with text keys, lists and scalars, with anchors and aliases. Merge keys,
//! tags other than those of the core schema, and keys that are written twice are faults. A file has a budget of
//! [`YAML_NODES`] values, where each use of an alias counts as all that it stands for, and of [`YAML_DEPTH`] levels; an
//! aliased value is shared and never copied, so a small file cannot grow into a large tree.

use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{Event, Marker, Options, Parser, ScalarStyle, Tag};
use tidegate_schemas::limits::{YAML_DEPTH, YAML_NODES};

use super::diagnostic::{Diagnostic, Place, Severity};

/// A value with its place.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) content: Content,
    /// Values in it, itself among them, as if aliases were written out.
    size: usize,
    /// Levels in it, 1 for a scalar.
    depth: usize,
}

#[derive(Debug)]
pub(crate) enum Content {
    Null,
    /// A scalar; `plain` where it stands without quotes and so may be a number or a boolean.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Arc<Node>>),
    Map(Vec<Entry>),
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) value: Arc<Node>,
}

impl Node {
    /// A value that no budget of a file counts, because it comes from somewhere else.
    pub(crate) fn new(place: Place, content: Content) -> Arc<Self> {
        Arc::new(Self { place, content, size: 1, depth: 1 })
    }
}

impl Content {
    /// What the value is, for a diagnostic: "must be a text and is a number".
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Scalar { plain: false, .. } => "a text",
            Self::Scalar { text, .. } => match text.as_str() {
                "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => "a boolean",
                text if is_number(text) => "a number",
                _ => "a text",
            },
        }
    }
}

/// Whether a plain scalar is a number in YAML's core schema (YAML 1.2.2, 10.3.2).
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if let Some(digits) = text.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    }
    matches!(unsigned, ".inf" | ".Inf" | ".INF")
        || matches!(text, ".nan" | ".NaN" | ".NAN")
        || (unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.')
            && unsigned.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'))
            && unsigned.parse::<f64>().is_ok())
}

/// Reads every document of a file. What is wrong goes to `diagnostics`; a document with a fault of syntax is left out,
/// one with another fault is given, so that its reader finds the rest.
pub(crate) fn parse(file: &Arc<str>, text: &str, diagnostics: &mut Vec<Diagnostic>) -> Vec<Arc<Node>> {
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: YAML_DEPTH + 1,
        block_nesting_limit: YAML_DEPTH + 1,
    };
    let mut builder = Builder { file, diagnostics, frames: Vec::new(), anchors: HashMap::new(), size: 0 };
    let mut documents = Vec::new();
    let mut parser = parser(text, options);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => match builder.take(event, span.start, span.tag_start()) {
                Ok(Some(document)) => {
                    documents.extend((!matches!(document.content, Content::Null)).then_some(document))
                }
                Ok(None) => {}
                // A budget is spent: nothing that follows may be looked at.
                Err(Exceeded) => return documents,
            },
            Err(error) => {
                builder.fault(
                    place(*error.marker()),
                    format!("is not YAML: {}", error.info()),
                    "correct the syntax here or above",
                );
                builder.abandon();
                // Whatever comes behind the next `---` can still be judged.
                if !matches!(parser.proceed_next_document(), Ok(true)) {
                    break;
                }
            }
        }
    }
    documents
}

fn parser(text: &str, options: Options) -> Parser<'_, granit_parser::StrInput<'_>> {
    Parser::new_from_str_with_options(text, options)
}

fn place(marker: Marker) -> Place {
    Place { line: marker.line(), column: marker.col() + 1 }
}

/// A budget was exceeded, which has been reported.
struct Exceeded;

struct Builder<'a> {
    file: &'a Arc<str>,
    diagnostics: &'a mut Vec<Diagnostic>,
    frames: Vec<Frame>,
    anchors: HashMap<usize, Arc<Node>>,
    size: usize,
}

/// A list or map that is not complete yet.
struct Frame {
    place: Place,
    anchor: usize,
    kind: FrameKind,
}

enum FrameKind {
    List(Vec<Arc<Node>>),
    Map {
        entries: Vec<Entry>,
        /// Where each key was written first; a search of `entries` for every key would be quadratic.
        first: HashMap<String, Place>,
        key: Option<Key>,
    },
}

struct Key {
    /// Nothing where the key was at fault and its value is to be left out.
    text: Option<String>,
    place: Place,
}

impl Builder<'_> {
    fn fault(&mut self, place: Place, what: impl Into<String>, mend: impl Into<String>) {
        self.diagnostics.push(Diagnostic {
            severity: Severity::Error,
            file: Arc::clone(self.file),
            place: Some(place),
            what: what.into(),
            mend: mend.into(),
        });
    }

    fn abandon(&mut self) {
        self.frames.clear();
        self.anchors.clear();
    }

    /// Takes one event and gives the document that it completes.
    fn take(&mut self, event: Event<'_>, start: Marker, tag: Option<Marker>) -> Result<Option<Arc<Node>>, Exceeded> {
        let place = place(start);
        let tag_place = tag.map_or(place, self::place);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let mut plain = style == ScalarStyle::Plain;
                if let Some(tag) = tag {
                    plain &= !self.check_tag(&tag, tag_place);
                }
                let content = if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    Content::Null
                } else {
                    Content::Scalar { text: text.into_owned(), plain }
                };
                self.complete(Node { place, content, size: 1, depth: 1 }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(place, anchor, tag.as_deref(), tag_place, FrameKind::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                let kind = FrameKind::Map { entries: Vec::new(), first: HashMap::new(), key: None };
                self.open(place, anchor, tag.as_deref(), tag_place, kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => {
                    let node = Arc::clone(node);
                    self.attach(node, Some(place))
                }
                None => {
                    self.fault(place, "is an alias of a value that it stands in itself", "write the value out");
                    self.attach(Arc::new(Node { place, content: Content::Null, size: 1, depth: 1 }), None)
                }
            },
            Event::UnresolvedAlias(name) => {
                self.fault(
                    place,
                    format!("is an alias `*{name}` without an anchor `&{name}` before it in this document"),
                    "write the value out, or put the text in quotes",
                );
                self.attach(Arc::new(Node { place, content: Content::Null, size: 1, depth: 1 }), None)
            }
            Event::DocumentStart(..) => {
                self.abandon();
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Whether the tag makes its scalar a text. A tag that means nothing here is a fault.
    fn check_tag(&mut self, tag: &Tag, place: Place) -> bool {
        match tag.core_suffix() {
            Some("str") => true,
            Some("int" | "float" | "bool" | "null" | "map" | "seq") => false,
            _ => {
                self.fault(place, format!("has the tag `{}`, and tags are not read", tag.original()), "remove the tag");
                false
            }
        }
    }

    fn open(
        &mut self,
        place: Place,
        anchor: usize,
        tag: Option<&Tag>,
        tag_place: Place,
        kind: FrameKind,
    ) -> Result<Option<Arc<Node>>, Exceeded> {
        if let Some(tag) = tag {
            self.check_tag(tag, tag_place);
        }
        if self.frames.len() >= YAML_DEPTH {
            return self.too_deep(place);
        }
        self.frames.push(Frame { place, anchor, kind });
        Ok(None)
    }

    fn close(&mut self) -> Result<Option<Arc<Node>>, Exceeded> {
        let Some(Frame { place, anchor, kind }) = self.frames.pop() else { return Ok(None) };
        let content = match kind {
            FrameKind::List(items) => Content::List(items),
            FrameKind::Map { entries, .. } => Content::Map(entries),
        };
        let (size, depth) = match &content {
            Content::List(items) => measure(items.iter()),
            Content::Map(entries) => measure(entries.iter().map(|entry| &entry.value)),
            Content::Null | Content::Scalar { .. } => (1, 1),
        };
        self.complete(Node { place, content, size, depth }, anchor)
    }

    fn complete(&mut self, node: Node, anchor: usize) -> Result<Option<Arc<Node>>, Exceeded> {
        let node = Arc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Arc::clone(&node));
        }
        self.attach(node, None)
    }

    /// Puts a value where it belongs; `alias` is the place of the alias that stands for it.
    fn attach(&mut self, node: Arc<Node>, alias: Option<Place>) -> Result<Option<Arc<Node>>, Exceeded> {
        let place = alias.unwrap_or(node.place);
        // What is no alias was counted when its parts came.
        self.size += if alias.is_some() { node.size } else { 1 };
        if self.size > YAML_NODES {
            self.fault(
                place,
                format!("makes more than {YAML_NODES} values of this file, aliases written out"),
                "split the file, or use fewer aliases",
            );
            return Err(Exceeded);
        }
        if self.frames.len() + node.depth > YAML_DEPTH {
            return self.too_deep(place);
        }
        match self.frames.last_mut().map(|frame| &mut frame.kind) {
            None => Ok(Some(node)),
            Some(FrameKind::List(items)) => {
                items.push(node);
                Ok(None)
            }
            Some(FrameKind::Map { entries, key, .. }) => {
                match key.take() {
                    None => {
                        let text = match &node.content {
                            Content::Scalar { text, .. } => Some(text.clone()),
                            _ => None,
                        };
                        let text = self.check_key(text, place);
                        if let Some(Frame { kind: FrameKind::Map { key, .. }, .. }) = self.frames.last_mut() {
                            *key = Some(Key { text, place });
                        }
                    }
                    Some(Key { text: Some(text), place: key_place }) => {
                        entries.push(Entry { key: text, key_place, value: node });
                    }
                    Some(Key { text: None, .. }) => {}
                }
                Ok(None)
            }
        }
    }

    /// The key, if it may stand in the map that is open.
    fn check_key(&mut self, text: Option<String>, place: Place) -> Option<String> {
        let Some(text) = text else {
            self.fault(place, "is a key that is not a text", "write a word as the key");
            return None;
        };
        if text == "<<" {
            self.fault(place, "is a merge key, and merge keys are not read", "write the keys out");
            return None;
        }
        let Some(Frame { kind: FrameKind::Map { first, .. }, .. }) = self.frames.last_mut() else { return None };
        if let Some(first) = first.get(&text).copied() {
            self.fault(
                place,
                format!("`{text}` is written twice, the first time in line {}", first.line),
                "remove one",
            );
            return None;
        }
        first.insert(text.clone(), place);
        Some(text)
    }

    fn too_deep(&mut self, place: Place) -> Result<Option<Arc<Node>>, Exceeded> {
        self.fault(place, format!("is nested deeper than {YAML_DEPTH} levels"), "write it flatter");
        Err(Exceeded)
    }
}

fn measure<'a>(children: impl Iterator<Item = &'a Arc<Node>>) -> (usize, usize) {
    children.fold((1, 1), |(size, depth), child| (size.saturating_add(child.size), depth.max(child.depth + 1)))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn parse_text(text: &str) -> (Vec<Arc<Node>>, Vec<String>) {
        let mut diagnostics = Vec::new();
        let documents = parse(&"f".into(), text, &mut diagnostics);
        (documents, diagnostics.iter().map(ToString::to_string).collect())
    }

    /// A compact picture of a tree with its places.
    fn picture(node: &Node) -> String {
        let inside = match &node.content {
            Content::Null => "null".to_owned(),
            Content::Scalar { text, plain } => format!("{}{text:?}", if *plain { "" } else { "'" }),
            Content::List(items) => {
                format!("[{}]", items.iter().map(|item| picture(item)).collect::<Vec<_>>().join(" "))
            }
            Content::Map(entries) => {
                let entries =
                    entries.iter().map(|entry| format!("{}@{}={}", entry.key, entry.key_place, picture(&entry.value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
            }
        };
        format!("{inside}@{}", node.place)
    }

    #[test]
    fn every_value_knows_its_place() {
        let (documents, faults) = parse_text("a: 1\nb:\n  - x\n  - \"2\"\nc:\n---\n---\nd: {e: [f, ~]}\n");
        assert_eq!(faults, Vec::<String>::new());
        let pictures: Vec<_> = documents.iter().map(|node| picture(node)).collect();
        assert_eq!(pictures[0], "{a@1:1=\"1\"@1:4 b@2:1=[\"x\"@3:5 '\"2\"@4:5]@3:3 c@5:1=null@5:2}@1:1");
        assert_eq!(pictures[1], "{d@8:1={e@8:5=[\"f\"@8:9 null@8:12]@8:8}@8:4}@8:1");
        assert_eq!(pictures.len(), 2);
    }

    #[test]
    fn faults_do_not_hide_each_other() {
        let (documents, faults) = parse_text(
            "a: 1\na: 2\n? [x]\n: 3\n<<: {b: 1}\nc: *nowhere\nd: !custom x\ne: !!str 5\n---\nf: [1\n---\ng: 1\n",
        );
        assert_eq!(
            faults,
            [
                "f:2:1: `a` is written twice, the first time in line 1 (remove one)",
                "f:3:3: is a key that is not a text (write a word as the key)",
                "f:5:1: is a merge key, and merge keys are not read (write the keys out)",
                "f:6:4: is an alias `*nowhere` without an anchor `&nowhere` before it in this document (write the value out, or put the text in quotes)",
                "f:7:4: has the tag `!custom`, and tags are not read (remove the tag)",
                &faults[5],
            ]
        );
        assert!(faults[5].contains("is not YAML"), "{faults:?}");
        assert_eq!(documents.len(), 2, "the document behind the fault is read: {faults:?}");
    }

    #[test]
    fn aliases_are_shared_and_counted() {
        let (documents, faults) = parse_text("a: &x {b: 1}\nc: *x\n");
        assert_eq!(faults, Vec::<String>::new());
        let Content::Map(entries) = &documents[0].content else { panic!() };
        assert!(Arc::ptr_eq(&entries[0].value, &entries[1].value));
        let (_, faults) = parse_text("a: &x [*x]\n");
        assert_eq!(faults, ["f:1:8: is an alias of a value that it stands in itself (write the value out)"]);

        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let alias = format!("*a{}", level - 1);
            writeln!(bomb, "a{level}: &a{level} [{}]", [alias.as_str(); 10].join(", ")).unwrap();
        }
        let (_, faults) = parse_text(&bomb);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains("more than 100000 values"), "{faults:?}");
    }

    #[test]
    fn depth_is_bounded_with_and_without_aliases() {
        let nested = |levels: usize| format!("{}x{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(parse_text(&nested(YAML_DEPTH - 1)).1, Vec::<String>::new());
        for text in [nested(YAML_DEPTH), nested(10_000), format!("{}x", "- ".repeat(10_000))] {
            assert_eq!(parse_text(&text).1.len(), 1);
        }
        let mut chain = "a0: &a0 [x]\n".to_owned();
        for level in 1..YAML_DEPTH {
            writeln!(chain, "a{level}: &a{level} [*a{}]", level - 1).unwrap();
        }
        let (_, faults) = parse_text(&chain);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains("nested deeper"), "{faults:?}");
    }

    #[test]
    fn numbers_are_told_from_texts() {
        for (text, kind) in [
            ("1", "a number"),
            ("-1.5e3", "a number"),
            ("0x1F", "a number"),
            (".5", "a number"),
            (".inf", "a number"),
            ("1s", "a text"),
            ("1.2.3", "a text"),
            ("127.0.0.1", "a text"),
            ("e5", "a text"),
            (".", "a text"),
            ("infinity", "a text"),
            ("true", "a boolean"),
            ("yes", "a text"),
        ] {
            assert_eq!(Content::Scalar { text: text.to_owned(), plain: true }.kind(), kind, "{text}");
            assert_eq!(Content::Scalar { text: text.to_owned(), plain: false }.kind(), "a text", "{text}");
        }
    }
}
