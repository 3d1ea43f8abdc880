//! The grammar of CEL: text in, tree out. Macros (`has`, `all`, `map`, …) become nodes of their own.
//!
//! A tree is small and shallow: both are bounded here, so that neither a hostile definition nor a hostile
//! depth of brackets costs more than an error.

/// How long an expression may be, in bytes; Kubernetes' own bound is lower.
const TEXT_MAX: usize = 64 << 10;
/// How deep expressions may be nested.
const DEPTH_MAX: usize = 60;

/// A literal.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// `1`.
    Int(i64),
    /// `1u`.
    Uint(u64),
    /// `1.5`.
    Double(f64),
    /// `"a"`.
    Text(String),
    /// `b"a"`.
    Bytes(Vec<u8>),
}

/// A comprehension: what it is called and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    /// True for every element.
    All,
    /// True for one at least.
    Exists,
    /// True for exactly one.
    ExistsOne,
    /// The results, of those that pass the filter.
    Map,
    /// Those for which it is true.
    Filter,
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// A literal.
    Literal(Literal),
    /// A variable.
    Name(String),
    /// `of.field`; `of.?field` if optional.
    Select {
        /// What is looked into.
        of: Box<Expr>,
        /// The field.
        field: String,
        /// Absent is no error.
        optional: bool,
    },
    /// `has(of.field)`.
    Has {
        /// What is looked into.
        of: Box<Expr>,
        /// The field.
        field: String,
    },
    /// `of[at]`; `of[?at]` if optional.
    Index {
        /// The list or map.
        of: Box<Expr>,
        /// Where.
        at: Box<Expr>,
        /// Absent is no error.
        optional: bool,
    },
    /// `name(args)` or `of.name(args)`.
    Call {
        /// The function, with its namespace if it has one: `sets.contains`.
        name: String,
        /// What it is called on.
        of: Option<Box<Expr>>,
        /// Its arguments.
        args: Vec<Expr>,
    },
    /// `!a`, `-a`.
    Unary(char, Box<Expr>),
    /// `a op b`, but for `&&` and `||`.
    Binary(&'static str, Box<Expr>, Box<Expr>),
    /// `a && b`, `a || b`.
    Logic(bool, Box<Expr>, Box<Expr>),
    /// `a ? b : c`.
    Choice(Box<Expr>, Box<Expr>, Box<Expr>),
    /// `[a, ?b]`; the flag marks the optional ones.
    List(Vec<(bool, Expr)>),
    /// `{a: b, ?c: d}`.
    Map(Vec<(bool, Expr, Expr)>),
    /// A loop over a list or the keys of a map.
    Loop {
        /// Which.
        kind: Loop,
        /// Over what.
        over: Box<Expr>,
        /// The variables: the element, or position and element.
        names: Vec<String>,
        /// The filter of a `map` with three arguments.
        filter: Option<Box<Expr>>,
        /// Evaluated for each.
        body: Box<Expr>,
    },
    /// `cel.bind(name, value, body)`, and `optMap` where the value is what an optional holds.
    Bind {
        /// The variable.
        name: String,
        /// Its value.
        value: Box<Expr>,
        /// Where it is known.
        body: Box<Expr>,
        /// How an optional value is treated: not at all, mapped, or mapped to another optional.
        optional: Option<bool>,
    },
}

/// Reads an expression.
pub fn parse(text: &str) -> Result<Expr, String> {
    if text.len() > TEXT_MAX {
        return Err(format!("an expression of {} bytes is too long", text.len()));
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let expr = parser.expression()?;
    match parser.tokens.get(parser.at) {
        None => Ok(expr),
        Some(more) => Err(format!("unexpected {}", more.shown())),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Literal(Literal),
    Name(String),
    Sign(&'static str),
}

impl Token {
    fn shown(&self) -> String {
        match self {
            Token::Literal(literal) => format!("literal {literal:?}"),
            Token::Name(name) => format!("'{name}'"),
            Token::Sign(sign) => format!("'{sign}'"),
        }
    }
}

/// Longest first, so that `<=` is not `<` and `=`.
const SIGNS: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", "[?", ".?", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".",
    ",", "(", ")", "[", "]", "{", "}",
];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.find('\n').map_or("", |end| &comment[end..]);
            continue;
        }
        let Some(first) = rest.chars().next() else { return Ok(out) };
        let second_is_digit = rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        if let Some((literal, after)) = quoted(rest)? {
            out.push(Token::Literal(literal));
            rest = after;
        } else if first.is_ascii_digit() || (first == '.' && second_is_digit) {
            let (literal, after) = number(rest)?;
            out.push(Token::Literal(literal));
            rest = after;
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            out.push(match name {
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "null" => Token::Literal(Literal::Null),
                "in" => Token::Sign("in"),
                name => Token::Name(name.to_string()),
            });
            rest = after;
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            out.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
        } else {
            return Err(format!("unexpected character {first:?}"));
        }
    }
}

fn number(text: &str) -> Result<(Literal, &str), String> {
    let bad = |part: &str| format!("{part:?} is no number that fits");
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let end = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        let (digits, after) = hex.split_at(end);
        if let Some(after) = after.strip_prefix(['u', 'U']) {
            return u64::from_str_radix(digits, 16)
                .map(|n| (Literal::Uint(n), after))
                .map_err(|_| bad(digits));
        }
        return i64::from_str_radix(digits, 16).map(|n| (Literal::Int(n), after)).map_err(|_| bad(digits));
    }
    let bytes = text.as_bytes();
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let mut end = digits(0);
    let mut is_double = false;
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        is_double = true;
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            is_double = true;
            end = digits(end + 1 + sign);
        }
    }
    let (part, after) = text.split_at(end);
    if is_double {
        return part.parse().map(|n| (Literal::Double(n), after)).map_err(|_| bad(part));
    }
    if let Some(after) = after.strip_prefix(['u', 'U']) {
        return part.parse().map(|n| (Literal::Uint(n), after)).map_err(|_| bad(part));
    }
    part.parse().map(|n| (Literal::Int(n), after)).map_err(|_| bad(part))
}

/// A string or bytes literal at the beginning of the text, if there is one.
fn quoted(text: &str) -> Result<Option<(Literal, &str)>, String> {
    let (mut raw, mut bytes, mut rest) = (false, false, text);
    for _ in 0..2 {
        match rest.chars().next() {
            Some('r' | 'R') if !raw && is_quoted(&rest[1..]) => (raw, rest) = (true, &rest[1..]),
            Some('b' | 'B') if !bytes && is_quoted(&rest[1..]) => (bytes, rest) = (true, &rest[1..]),
            _ => break,
        }
    }
    let Some(quote) = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|q| rest.starts_with(q)) else {
        return Ok(None);
    };
    rest = &rest[quote.len()..];
    let mut out: Vec<u8> = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(quote) {
            let literal = if bytes {
                Literal::Bytes(out)
            } else {
                Literal::Text(String::from_utf8(out).map_err(|_| "a string that is not UTF-8".to_string())?)
            };
            return Ok(Some((literal, after)));
        }
        let Some(c) = rest.chars().next() else { return Err("a string without an end".into()) };
        rest = &rest[c.len_utf8()..];
        if c == '\n' && quote.len() == 1 {
            return Err("a string without an end on its line".into());
        }
        if c != '\\' || raw {
            let mut buffer = [0; 4];
            out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
            continue;
        }
        let (escaped, after) = escape(rest, bytes)?;
        out.extend_from_slice(&escaped);
        rest = after;
    }
}

fn is_quoted(text: &str) -> bool {
    text.starts_with(['"', '\''])
        || (text.starts_with(['r', 'R', 'b', 'B']) && text[1..].starts_with(['"', '\'']))
}

fn escape(text: &str, bytes: bool) -> Result<(Vec<u8>, &str), String> {
    let bad = || format!("unknown escape \\{}", text.chars().take(4).collect::<String>());
    let c = text.chars().next().ok_or_else(bad)?;
    let after = &text[c.len_utf8()..];
    let simple = |byte: u8| Ok((vec![byte], after));
    let coded = |start: usize, digits: usize, radix: u32| -> Result<(Vec<u8>, &str), String> {
        let code = text.get(start..start + digits).ok_or_else(bad)?;
        let code = u32::from_str_radix(code, radix).map_err(|_| bad())?;
        let after = &text[start + digits..];
        if bytes && radix != 16 || bytes && start == 1 && digits == 2 {
            return u8::try_from(code).map(|byte| (vec![byte], after)).map_err(|_| bad());
        }
        let c = char::from_u32(code).ok_or_else(bad)?;
        Ok((c.to_string().into_bytes(), after))
    };
    match c {
        'a' => simple(7),
        'b' => simple(8),
        'f' => simple(12),
        'n' => simple(b'\n'),
        'r' => simple(b'\r'),
        't' => simple(b'\t'),
        'v' => simple(11),
        '\\' | '\'' | '"' | '`' | '?' => simple(c as u8),
        'x' | 'X' => coded(1, 2, 16),
        'u' => coded(1, 4, 16),
        'U' => coded(1, 8, 16),
        '0'..='3' => coded(0, 3, 8),
        _ => Err(bad()),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn is(&self, sign: &str) -> bool {
        matches!(self.tokens.get(self.at), Some(Token::Sign(s)) if *s == sign)
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.eat(sign) {
            return Ok(());
        }
        let found = self.tokens.get(self.at).map_or("the end".to_string(), Token::shown);
        Err(format!("expected '{sign}', found {found}"))
    }

    fn name(&mut self) -> Result<String, String> {
        match self.tokens.get(self.at) {
            Some(Token::Name(name)) => {
                self.at += 1;
                Ok(name.clone())
            }
            // A field may be called like an operator.
            Some(Token::Sign("in")) => {
                self.at += 1;
                Ok("in".into())
            }
            other => Err(format!("expected a name, found {}", other.map_or("the end".into(), Token::shown))),
        }
    }

    fn expression(&mut self) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("the expression is nested too deeply".into());
        }
        let condition = self.logic(true)?;
        let done = if self.eat("?") {
            let yes = self.logic(true)?;
            self.expect(":")?;
            let no = self.expression()?;
            Expr::Choice(Box::new(condition), Box::new(yes), Box::new(no))
        } else {
            condition
        };
        self.depth -= 1;
        Ok(done)
    }

    /// `||` binds less than `&&`.
    fn logic(&mut self, or: bool) -> Result<Expr, String> {
        let mut left = if or { self.logic(false)? } else { self.relation()? };
        while self.eat(if or { "||" } else { "&&" }) {
            let right = if or { self.logic(false)? } else { self.relation()? };
            left = Expr::Logic(or, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn chain(
        &mut self,
        signs: &[&'static str],
        part: fn(&mut Parser) -> Result<Expr, String>,
    ) -> Result<Expr, String> {
        let mut left = part(self)?;
        while let Some(sign) = signs.iter().find(|sign| self.is(sign)) {
            self.at += 1;
            left = Expr::Binary(sign, Box::new(left), Box::new(part(self)?));
        }
        Ok(left)
    }

    fn relation(&mut self) -> Result<Expr, String> {
        self.chain(&["==", "!=", "<=", ">=", "<", ">", "in"], Parser::sum)
    }

    fn sum(&mut self) -> Result<Expr, String> {
        self.chain(&["+", "-"], Parser::product)
    }

    fn product(&mut self) -> Result<Expr, String> {
        self.chain(&["*", "/", "%"], Parser::unary)
    }

    fn unary(&mut self) -> Result<Expr, String> {
        let sign = if self.is("!") {
            '!'
        } else if self.is("-") {
            '-'
        } else {
            return self.member();
        };
        self.at += 1;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("the expression is nested too deeply".into());
        }
        let inner = self.unary()?;
        self.depth -= 1;
        Ok(match (sign, inner) {
            ('-', Expr::Literal(Literal::Int(n))) => Expr::Literal(Literal::Int(n.wrapping_neg())),
            ('-', Expr::Literal(Literal::Double(n))) => Expr::Literal(Literal::Double(-n)),
            (sign, inner) => Expr::Unary(sign, Box::new(inner)),
        })
    }

    fn member(&mut self) -> Result<Expr, String> {
        let mut of = self.primary()?;
        loop {
            if self.eat(".?") {
                of = Expr::Select { of: Box::new(of), field: self.name()?, optional: true };
            } else if self.eat(".") {
                let name = self.name()?;
                of = if self.eat("(") {
                    let args = self.arguments(")")?;
                    method(of, name, args)?
                } else {
                    Expr::Select { of: Box::new(of), field: name, optional: false }
                };
            } else if self.is("[") || self.is("[?") {
                let optional = self.is("[?");
                self.at += 1;
                let at = self.expression()?;
                self.expect("]")?;
                of = Expr::Index { of: Box::new(of), at: Box::new(at), optional };
            } else {
                return Ok(of);
            }
        }
    }

    fn arguments(&mut self, end: &str) -> Result<Vec<Expr>, String> {
        let mut args = Vec::new();
        while !self.eat(end) {
            if !args.is_empty() {
                self.expect(",")?;
                if self.eat(end) {
                    break;
                }
            }
            args.push(self.expression()?);
        }
        Ok(args)
    }

    fn primary(&mut self) -> Result<Expr, String> {
        // A leading dot only says that the name is meant from the root.
        self.eat(".");
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        match token {
            Some(Token::Literal(literal)) => Ok(Expr::Literal(literal)),
            Some(Token::Name(name)) if self.eat("(") => {
                let args = self.arguments(")")?;
                function(name, args)
            }
            Some(Token::Name(name)) => Ok(Expr::Name(name)),
            Some(Token::Sign("(")) => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Some(Token::Sign("[")) => self.list(),
            // `[?` is one sign, and here it opens a list whose first element is optional.
            Some(Token::Sign("[?")) => {
                let first = self.expression()?;
                let mut items = vec![(true, first)];
                if self.eat(",") {
                    let Expr::List(more) = self.list()? else { return Err("a list was expected".into()) };
                    items.extend(more);
                } else {
                    self.expect("]")?;
                }
                Ok(Expr::List(items))
            }
            Some(Token::Sign("{")) => {
                let mut entries = Vec::new();
                while !self.eat("}") {
                    if !entries.is_empty() {
                        self.expect(",")?;
                        if self.eat("}") {
                            break;
                        }
                    }
                    let optional = self.eat("?");
                    let key = self.expression()?;
                    self.expect(":")?;
                    entries.push((optional, key, self.expression()?));
                }
                Ok(Expr::Map(entries))
            }
            Some(other) => Err(format!("unexpected {}", other.shown())),
            None => Err("the expression ends too early".into()),
        }
    }

    fn list(&mut self) -> Result<Expr, String> {
        let mut items = Vec::new();
        while !self.eat("]") {
            if !items.is_empty() {
                self.expect(",")?;
                if self.eat("]") {
                    break;
                }
            }
            let optional = self.eat("?");
            items.push((optional, self.expression()?));
        }
        Ok(Expr::List(items))
    }
}

fn function(name: String, mut args: Vec<Expr>) -> Result<Expr, String> {
    if name == "has" {
        return match (args.pop(), args.is_empty()) {
            (Some(Expr::Select { of, field, optional: false }), true) => Ok(Expr::Has { of, field }),
            _ => Err("has() takes one field, as in has(self.field)".into()),
        };
    }
    Ok(Expr::Call { name, of: None, args })
}

/// A call on something: a macro, a function of a namespace (`sets.contains`), or a method.
fn method(of: Expr, name: String, mut args: Vec<Expr>) -> Result<Expr, String> {
    if let Expr::Name(space) = &of
        && matches!(space.as_str(), "sets" | "optional" | "format" | "math" | "cel" | "ip" | "strings")
    {
        if space == "cel" && name == "bind" && args.len() == 3 {
            let (body, value) = (args.pop(), args.pop());
            let variable = variable(args.pop())?;
            let (Some(body), Some(value)) = (body, value) else { return Err("cel.bind takes three".into()) };
            return Ok(Expr::Bind { name: variable, value: value.into(), body: body.into(), optional: None });
        }
        return Ok(Expr::Call { name: format!("{space}.{name}"), of: None, args });
    }
    let kind = match (name.as_str(), args.len()) {
        ("all", 2 | 3) => Some(Loop::All),
        ("exists", 2 | 3) => Some(Loop::Exists),
        ("exists_one" | "existsOne", 2 | 3) => Some(Loop::ExistsOne),
        ("map", 2 | 3) => Some(Loop::Map),
        ("filter", 2) => Some(Loop::Filter),
        _ => None,
    };
    if let Some(kind) = kind {
        let body = args.pop().map(Box::new).ok_or("a loop needs a body")?;
        let filter = if kind == Loop::Map && args.len() == 2 { args.pop().map(Box::new) } else { None };
        let names = args.into_iter().map(|a| variable(Some(a))).collect::<Result<_, _>>()?;
        return Ok(Expr::Loop { kind, over: Box::new(of), names, filter, body });
    }
    if matches!(name.as_str(), "optMap" | "optFlatMap") && args.len() == 2 {
        let body = args.pop().map(Box::new).ok_or("optMap needs a body")?;
        let variable = variable(args.pop())?;
        return Ok(Expr::Bind {
            name: variable,
            value: Box::new(of),
            body,
            optional: Some(name == "optFlatMap"),
        });
    }
    Ok(Expr::Call { name, of: Some(Box::new(of)), args })
}

fn variable(expr: Option<Expr>) -> Result<String, String> {
    match expr {
        Some(Expr::Name(name)) => Ok(name),
        _ => Err("a loop's variable must be a plain name".into()),
    }
}

/// Every name and function an expression uses, for checking it before it is ever evaluated.
pub fn visit(expr: &Expr, seen: &mut dyn FnMut(&Expr)) {
    seen(expr);
    let mut each = |inner: &Expr| visit(inner, seen);
    match expr {
        Expr::Literal(_) | Expr::Name(_) => {}
        Expr::Select { of, .. } | Expr::Has { of, .. } | Expr::Unary(_, of) => each(of),
        Expr::Index { of, at, .. } => [of, at].into_iter().for_each(|e| each(e)),
        Expr::Call { of, args, .. } => {
            of.iter().for_each(|e| each(e));
            args.iter().for_each(each);
        }
        Expr::Binary(_, a, b) | Expr::Logic(_, a, b) => [a, b].into_iter().for_each(|e| each(e)),
        Expr::Choice(a, b, c) => [a, b, c].into_iter().for_each(|e| each(e)),
        Expr::List(items) => items.iter().for_each(|(_, e)| each(e)),
        Expr::Map(entries) => entries.iter().for_each(|(_, k, v)| {
            each(k);
            each(v);
        }),
        Expr::Loop { over, filter, body, .. } => {
            each(over);
            filter.iter().for_each(|e| each(e));
            each(body);
        }
        Expr::Bind { value, body, .. } => [value, body].into_iter().for_each(|e| each(e)),
    }
}
