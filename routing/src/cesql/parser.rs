//! The parser of CESQL (2): operator precedence by recursive descent, with a bound on everything that it recurses into
//! or builds.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use tidegate_schemas::limits::{CESQL_BYTES, CESQL_DEPTH, CESQL_NODES};

use super::ErrorKind;
use super::ast::{Arithmetic, Attribute, Connective, Literal, Node, NodeId, Precedence, Tree};
use super::functions::{Function, Functions};
use super::lexer::{Kind, Lexer, Token};
use super::pattern::Pattern;

/// A place in the text of an expression. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Bytes before it.
    pub offset: usize,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Position {
    /// The place of a line and a column, or the nearest before it that the text has.
    pub(crate) fn at(text: &str, line: usize, column: usize) -> Self {
        let lines = text.split_inclusive('\n');
        let before: usize = lines.take(line.saturating_sub(1)).map(str::len).sum();
        let this = text[before..].split('\n').next().unwrap_or_default();
        let within = this.char_indices().nth(column.saturating_sub(1)).map_or(this.len(), |(offset, _)| offset);
        Self::of(text, before + within)
    }

    /// The place behind so many bytes.
    pub(crate) fn of(text: &str, offset: usize) -> Self {
        let before = &text[..text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            offset,
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}, column {}", self.line, self.column)
    }
}

/// A text is no expression. The words never repeat names or literals of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Where.
    pub position: Position,
    /// What is wrong, and what was expected.
    pub what: String,
    /// How to mend it.
    pub mend: String,
}

impl ParseError {
    /// The type of this error in CESQL 3.3.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Parse
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}; {}", self.position, self.what, self.mend)
    }
}

impl std::error::Error for ParseError {}

/// Something legal that is hardly meant, and that shows before any event comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// Where.
    pub position: Position,
    /// What is doubtful.
    pub what: String,
    /// How to mend it.
    pub mend: String,
}

impl fmt::Display for Objection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}; {}", self.position, self.what, self.mend)
    }
}

/// A [`ParseError`] before its place is worked out.
#[derive(Debug)]
pub(super) struct Fault {
    offset: usize,
    what: String,
    mend: String,
}

impl Fault {
    pub(super) fn new(offset: usize, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { offset, what: what.into(), mend: mend.into() }
    }
}

pub(super) struct Parsed {
    pub(super) tree: Tree,
    pub(super) functions: Vec<Arc<Function>>,
    pub(super) objections: Vec<Objection>,
}

pub(super) fn parse(text: &str, functions: &Functions) -> Result<Parsed, ParseError> {
    let error =
        |fault: Fault| ParseError { position: Position::of(text, fault.offset), what: fault.what, mend: fault.mend };
    if text.len() > CESQL_BYTES {
        let what = format!("the expression has {} bytes and may have {CESQL_BYTES}", text.len());
        return Err(error(Fault::new(0, what, "make it shorter, or divide it among several filters")));
    }
    let mut parser = Parser {
        lexer: Lexer::new(text),
        token: Token { kind: Kind::End, start: 0, end: 0 },
        end_of_last: 0,
        registry: functions,
        nesting: 0,
        tree: Tree { nodes: Vec::new(), spans: Vec::new() },
        depths: Vec::new(),
        functions: Vec::new(),
        doubts: Vec::new(),
    };
    parser.whole().map_err(error)?;
    let objections = parser.doubts.into_iter().map(|fault| {
        let Fault { offset, what, mend } = fault;
        Objection { position: Position::of(text, offset), what, mend }
    });
    Ok(Parsed { tree: parser.tree, functions: parser.functions, objections: objections.collect() })
}

struct Parser<'t> {
    lexer: Lexer<'t>,
    /// The token that is looked at.
    token: Token<'t>,
    /// Where the one before it ended.
    end_of_last: usize,
    registry: &'t Functions,
    /// Expressions that are open, each within the one before.
    nesting: usize,
    tree: Tree,
    /// The levels of each node in the canonical form, its parentheses counted.
    depths: Vec<usize>,
    functions: Vec<Arc<Function>>,
    doubts: Vec<Fault>,
}

/// An operand with what its text looked like.
struct Operand {
    id: NodeId,
    start: usize,
    /// The operator that its text shows at the outermost level, outside of parentheses.
    bare: Bare,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bare {
    Nothing,
    Not,
    Connective(Connective),
}

impl<'t> Parser<'t> {
    fn whole(&mut self) -> Result<(), Fault> {
        self.token = self.lexer.next()?;
        if self.token.kind == Kind::End {
            return Err(Fault::new(0, "the expression is empty", "write one, such as `type = 'com.example.placed'`"));
        }
        self.expression(Precedence::Connective)?;
        match self.token.kind {
            Kind::End => Ok(()),
            Kind::Close => Err(self.fault("a `)` closes nothing", "remove it, or add the `(` that it closes")),
            Kind::Comma => {
                Err(self
                    .fault("a `,` stands outside of a list", "lists stand in the parentheses of `IN` or of a function"))
            }
            _ => Err(self.expected("an operator or the end", self.mend_of_operator())),
        }
    }

    /// Hints for words of other dialects.
    fn mend_of_operator(&self) -> &'static str {
        match &self.token.kind {
            Kind::Word(word) if word.eq_ignore_ascii_case("is") => {
                "whether an attribute is there is asked by `EXISTS name` and `NOT EXISTS name`"
            }
            Kind::Word(word) if word.eq_ignore_ascii_case("between") => "write `a >= 1 AND a <= 5`",
            Kind::Word(_) | Kind::Integer(_) | Kind::Text(_) | Kind::Open | Kind::Boolean(_) | Kind::Exists => {
                "join two conditions with `AND` or `OR`"
            }
            _ => "see what stands before it",
        }
    }

    fn fault(&self, what: impl Into<String>, mend: impl Into<String>) -> Fault {
        Fault::new(self.token.start, what, mend)
    }

    fn expected(&self, expected: &str, mend: &str) -> Fault {
        self.fault(format!("expected {expected} and found {}", self.token.kind.describe()), mend)
    }

    fn advance(&mut self) -> Result<Token<'t>, Fault> {
        let next = self.lexer.next()?;
        self.end_of_last = self.token.end;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn expect(&mut self, kind: &Kind<'_>, expected: &str, mend: &str) -> Result<(), Fault> {
        if self.token.kind != *kind {
            return Err(self.expected(expected, mend));
        }
        self.advance().map(|_| ())
    }

    /// Adds a node whose text began at `start` and ends with the last token.
    fn push(&mut self, node: Node, start: usize) -> Result<NodeId, Fault> {
        let id = self.tree.nodes.len();
        if id == CESQL_NODES {
            let what = format!("the expression has more than {CESQL_NODES} parts");
            return Err(Fault::new(start, what, "divide it among several filters"));
        }
        let mut depth = 1;
        node.children(
            |id| self.tree.node(id),
            |child, in_parentheses| {
                depth = depth.max(self.depths[child as usize] + 1 + usize::from(in_parentheses));
            },
        );
        if depth > CESQL_DEPTH {
            return Err(too_deep(start));
        }
        let offset = |offset: usize| u32::try_from(offset).expect("the limit of bytes is far below 32 bits");
        self.tree.nodes.push(node);
        self.tree.spans.push(offset(start)..offset(self.end_of_last));
        self.depths.push(depth);
        Ok(NodeId::try_from(id).expect("the limit of nodes is far below 32 bits"))
    }

    /// An expression whose operators bind as tightly as `least` or tighter.
    fn expression(&mut self, least: Precedence) -> Result<Operand, Fault> {
        if self.nesting == CESQL_DEPTH {
            return Err(too_deep(self.token.start));
        }
        self.nesting += 1;
        let mut left = self.prefix()?;
        while let Some(operator) = self.operator(least) {
            left = self.infix(left, operator)?;
        }
        self.nesting -= 1;
        Ok(left)
    }

    /// The precedence of the operator that is looked at, if it is one that may follow here.
    fn operator(&self, least: Precedence) -> Option<Precedence> {
        let precedence = match self.token.kind {
            Kind::Connective(_) => Precedence::Connective,
            Kind::Comparison(_) => Precedence::Comparison,
            Kind::Plus | Kind::Minus => Precedence::Additive,
            Kind::Star | Kind::Slash | Kind::Percent => Precedence::Multiplicative,
            Kind::In => Precedence::In,
            // What `NOT` negates is known only behind it, and `LIKE` binds almost like `IN`: see `infix`.
            Kind::Like | Kind::Not => Precedence::Like,
            _ => return None,
        };
        (precedence >= least).then_some(precedence)
    }

    fn infix(&mut self, left: Operand, precedence: Precedence) -> Result<Operand, Fault> {
        let Operand { id, start, bare } = left;
        if bare == Bare::Not && precedence != Precedence::Connective {
            self.doubts.push(Fault::new(
                start,
                "`NOT` binds tighter than the operator behind it, so only what stands between them is negated",
                "put what is meant into parentheses, as in `NOT (type = 'x')`, or write `!=`, `NOT LIKE` or `NOT IN`",
            ));
        }
        let mut operator = self.advance()?;
        let negated = operator.kind == Kind::Not;
        if negated {
            if !matches!(self.token.kind, Kind::Like | Kind::In) {
                return Err(self.expected("`LIKE` or `IN` behind `NOT`", "join two conditions with `AND` or `OR`"));
            }
            operator = self.advance()?;
        }
        let node = match operator.kind {
            Kind::Connective(connective) => return self.connective(left, connective, operator.start),
            Kind::Comparison(comparison) => Node::Comparison(comparison, id, self.right_of(precedence)?),
            Kind::Like => Node::Like { operand: id, pattern: self.like_pattern()?, negated },
            Kind::In => Node::In { operand: id, elements: self.set()?, negated },
            kind => {
                let arithmetic = match kind {
                    Kind::Plus => Arithmetic::Add,
                    Kind::Minus => Arithmetic::Subtract,
                    Kind::Star => Arithmetic::Multiply,
                    Kind::Slash => Arithmetic::Divide,
                    _ => Arithmetic::Remainder,
                };
                Node::Arithmetic(arithmetic, id, self.right_of(precedence)?)
            }
        };
        self.operand(node, start, Bare::Nothing)
    }

    fn operand(&mut self, node: Node, start: usize, bare: Bare) -> Result<Operand, Fault> {
        Ok(Operand { id: self.push(node, start)?, start, bare })
    }

    /// The operand on the right of an operator that groups to the left.
    fn right_of(&mut self, precedence: Precedence) -> Result<NodeId, Fault> {
        let tighter = match precedence {
            Precedence::Connective => Precedence::Comparison,
            Precedence::Comparison => Precedence::Additive,
            Precedence::Additive => Precedence::Multiplicative,
            _ => Precedence::In,
        };
        self.expression(tighter).map(|operand| operand.id)
    }

    /// A chain of operands that one operator joins, whose first `connective` was just taken.
    fn connective(&mut self, left: Operand, connective: Connective, at: usize) -> Result<Operand, Fault> {
        if let Bare::Connective(other) = left.bare {
            let (first, second) = (other.symbol(), connective.symbol());
            self.doubts.push(Fault::new(
                at,
                format!("`{first}` and `{second}` bind alike, and not everybody reads them in the same order"),
                format!("write `(a {first} b) {second} c` or `a {first} (b {second} c)`"),
            ));
        }
        let mut operands = vec![left.id, self.right_of(Precedence::Connective)?];
        while self.token.kind == Kind::Connective(connective) {
            self.advance()?;
            operands.push(self.right_of(Precedence::Connective)?);
        }
        self.operand(Node::Connective(connective, operands), left.start, Bare::Connective(connective))
    }

    fn like_pattern(&mut self) -> Result<Pattern, Fault> {
        if !matches!(self.token.kind, Kind::Text(_)) {
            return Err(
                self.expected("a text in quotes behind `LIKE`", "the pattern is a literal, such as `'com.example.%'`")
            );
        }
        match self.advance()?.kind {
            Kind::Text(text) => Ok(Pattern::new(&text)),
            _ => unreachable!("the token was looked at before it was taken"),
        }
    }

    /// The elements behind `IN`.
    fn set(&mut self) -> Result<Vec<NodeId>, Fault> {
        self.expect(&Kind::Open, "`(` behind `IN`", "write the set as `('a', 'b')`")?;
        if self.token.kind == Kind::Close {
            return Err(self.fault("the set has no elements", "name at least one"));
        }
        self.list("`,` or `)` in the set")
    }

    /// What stands between `(`, which was just taken, and `)`.
    fn list(&mut self, expected: &str) -> Result<Vec<NodeId>, Fault> {
        let mut items = Vec::new();
        if self.token.kind == Kind::Close {
            self.advance()?;
            return Ok(items);
        }
        loop {
            items.push(self.expression(Precedence::Connective)?.id);
            if self.token.kind != Kind::Comma {
                break;
            }
            self.advance()?;
        }
        self.expect(&Kind::Close, expected, self.mend_of_operator())?;
        Ok(items)
    }

    /// An operand with the operators before it.
    fn prefix(&mut self) -> Result<Operand, Fault> {
        let start = self.token.start;
        match &self.token.kind {
            Kind::Word(_) => return self.named(),
            Kind::Integer(_) | Kind::Text(_) | Kind::Boolean(_) => {}
            Kind::Not | Kind::Minus | Kind::Plus | Kind::Open | Kind::Exists => {}
            _ => {
                return Err(self.expected(
                    "a value",
                    "a value is an attribute, a number, a text in quotes, `TRUE`, `FALSE` or a function",
                ));
            }
        }
        let token = self.advance()?;
        let literal = match token.kind {
            Kind::Integer(magnitude) => Literal::Integer(integer(magnitude, false, start)?),
            Kind::Text(text) => Literal::String(text.into()),
            Kind::Boolean(flag) => Literal::Boolean(flag),
            Kind::Exists => {
                let attribute = self.attribute("the name of an attribute behind `EXISTS`")?;
                return self.operand(Node::Exists(attribute), start, Bare::Nothing);
            }
            Kind::Not => {
                let operand = self.expression(Precedence::Prefix)?.id;
                return self.operand(Node::Not(operand), start, Bare::Not);
            }
            Kind::Open => {
                let inner = self.expression(Precedence::Connective)?;
                self.expect(&Kind::Close, "an operator or `)`", self.mend_of_operator())?;
                return Ok(Operand { id: inner.id, start, bare: Bare::Nothing });
            }
            // The sign of a literal, with nothing between them.
            sign => match self.token.kind {
                Kind::Integer(magnitude) if self.token.start == token.end => {
                    self.advance()?;
                    Literal::Integer(integer(magnitude, sign == Kind::Minus, start)?)
                }
                _ if sign == Kind::Minus => {
                    let operand = self.expression(Precedence::Prefix)?.id;
                    return self.operand(Node::Negate(operand), start, Bare::Nothing);
                }
                _ => return Err(Fault::new(start, "a `+` with nothing before it is no operator", "remove it")),
            },
        };
        self.operand(Node::Literal(literal), start, Bare::Nothing)
    }

    /// An attribute, or a function with its arguments.
    fn named(&mut self) -> Result<Operand, Fault> {
        let Token { kind, start, end } = self.token.clone();
        let Kind::Word(name) = kind else { unreachable!("only called for a name") };
        // A name can only be told from a function by what follows, and is at fault as the one or the other.
        let is_call = self.lexer.next_is_open();
        if !is_call {
            let attribute = self.attribute("the name of an attribute")?;
            return self.operand(Node::Attribute(attribute), start, Bare::Nothing);
        }
        if !Function::is_name(name) {
            return Err(Fault::new(
                start,
                "names of functions begin with a letter and have letters and `_` only",
                "correct the name before the `(`",
            ));
        }
        self.advance()?;
        self.advance()?;
        let arguments = self.list("`,` or `)` in the arguments")?;
        let name = name.to_ascii_uppercase();
        let function = match self.registry.resolve(&name, arguments.len()) {
            Some(function) => {
                let found = self.functions.iter().position(|known| Arc::ptr_eq(known, function));
                let index = found.unwrap_or_else(|| {
                    self.functions.push(Arc::clone(function));
                    self.functions.len() - 1
                });
                Some(u32::try_from(index).expect("there are no more functions than nodes"))
            }
            None => {
                self.doubt_function(&name, arguments.len(), start..end);
                None
            }
        };
        self.operand(Node::Call { name: name.into(), arguments, function }, start, Bare::Nothing)
    }

    fn doubt_function(&mut self, name: &str, arguments: usize, span: Range<usize>) {
        let doubt = match self.registry.arities(name) {
            Some(arities) => Fault::new(
                span.start,
                format!("the function {name} does not take {arguments} arguments"),
                format!("it takes {arities}"),
            ),
            None => Fault::new(
                span.start,
                format!("there is no function {name}"),
                format!("use one of {}", self.registry.names()),
            ),
        };
        self.doubts.push(doubt);
    }

    fn attribute(&mut self, expected: &str) -> Result<Attribute, Fault> {
        let Kind::Word(name) = self.token.kind else {
            return Err(self.expected(expected, "names of attributes are letters and digits without quotes"));
        };
        if name.contains('_') {
            return Err(self.fault("names of attributes have letters and digits only", "correct the name"));
        }
        let attribute = Attribute::new(name);
        if &*attribute.name == "data" {
            self.doubts.push(Fault::new(
                self.token.start,
                "`data` is not an attribute, and this dialect sees attributes only",
                "ask for `type` or `subject`",
            ));
        }
        self.advance()?;
        Ok(attribute)
    }
}

fn too_deep(offset: usize) -> Fault {
    Fault::new(offset, format!("the expression is nested deeper than {CESQL_DEPTH} levels"), "write it flatter")
}

fn integer(magnitude: u64, negative: bool, offset: usize) -> Result<i32, Fault> {
    let signed = i64::try_from(magnitude).ok().map(|magnitude| if negative { -magnitude } else { magnitude });
    signed.and_then(|number| i32::try_from(number).ok()).ok_or_else(|| {
        Fault::new(offset, "the number does not fit", "write one from -2147483648 to 2147483647, or a text in quotes")
    })
}
