//! What expressions answer, and that none runs for ever.

use super::*;
use serde_json::json;

/// Each case is an expression over one object, and what it answers; errors by a word of them.
#[test]
fn expressions_answer_as_kubernetes_documents_them() {
    let schema = json!({"type": "object", "properties": {
        "replicas": {"type": "integer"}, "ratio": {"type": "number"},
        "when": {"type": "string", "format": "date-time"}, "grace": {"type": "string", "format": "duration"},
        "ports": {"type": "array", "items": {"type": "object", "properties": {"port": {"type": "integer"}}}}}});
    let object = json!({"replicas": 3, "min": 1, "ratio": 2, "name": "web-1", "when": "2026-01-02T03:04:05Z",
        "grace": "1h30m", "none": null, "foo-bar": 1, "namespace": "x",
        "labels": {"app": "web", "tier": "front"}, "tags": ["a", "b", "c"],
        "ports": [{"name": "http", "port": 80}, {"name": "tls", "port": 443}]});
    let check = |text: &str, expect: &str| {
        let got = compile(text, &["self", "oldSelf"])
            .and_then(|expr| evaluate(&expr, &[("self", Val::json(&object, Some(&schema)))]));
        match got {
            Ok(value) => assert_eq!(library::shown(&value), expect, "{text}"),
            Err(why) => assert!(
                expect.strip_prefix("error: ").is_some_and(|part| why.contains(part)),
                "{text}: {why}, expected {expect}"
            ),
        }
    };
    check("self.replicas >= self.min && self.replicas <= 5", "true");
    check("self.replicas == 3 ? 'three' : 'other'", "three");
    check("self.ratio / 4.0", "0.5");
    check("self.ratio == 2", "true");
    check("self.missing == 1", "error: no such key: missing");
    check("has(self.missing) || self.min == 1", "true");
    check("self.missing == 1 || true", "true");
    check("has(self.none)", "false");
    check("self.foo__dash__bar + self.replicas * 2", "7");
    check("self.__namespace__", "x");
    check("self.ports.all(p, p.port > 0 && p.port < 65536)", "true");
    check("self.ports.exists_one(p, p.name == 'tls')", "true");
    check("self.ports.map(p, p.port)", "[80, 443]");
    check("self.ports.filter(p, p.port > 100).map(p, p.name)", "[tls]");
    check("self.ports.map(p, p.port > 100, p.name)", "[tls]");
    check("self.tags.all(i, t, i < 3 && t != 'z')", "true");
    check("self.labels.all(k, k.size() > 2)", "true");
    check("'app' in self.labels && !('zone' in self.labels)", "true");
    check("self.labels['tier'].startsWith('fr')", "true");
    check("self.labels[?'zone'].orValue('none')", "none");
    check("self.?missing.?deep.hasValue()", "false");
    check("self.?labels.?app.optMap(a, a + '!').value()", "web!");
    check("[1, ?self.?missing, ?self.?min]", "[1, 1]");
    check("self.tags.size() == 3 && size('äö') == 2", "true");
    check("self.name.matches('^[a-z]+-[0-9]+$')", "true");
    check("self.tags.join('-')", "a-b-c");
    check("'a,b'.split(',').map(x, x.upperAscii())", "[A, B]");
    check("'hello'.substring(1, 3) + 'abc'.charAt(1)", "elb");
    check("' x '.trim().replace('x', 'yy')", "yy");
    check("[3, 1, 2].isSorted() || [1, 2].sum() == 3", "true");
    check("[1, 2].max() - [5, 4].min()", "-2");
    check("self.when > timestamp('2026-01-01T00:00:00Z')", "true");
    check("self.when.getFullYear() + self.when.getMonth()", "2026");
    check("self.grace == duration('90m')", "true");
    check("self.when + duration('55s') == timestamp('2026-01-02T03:05:00Z')", "true");
    check("quantity('1Gi').isGreaterThan(quantity('1000Mi'))", "true");
    check("quantity('500m').add(quantity('1')).compareTo(quantity('1500m'))", "0");
    check("isQuantity('1Zi') || !isQuantity('x')", "true");
    check("url('https://a.b:80/c?d=e').getHostname() + url('https://a.b/c').getEscapedPath()", "a.b/c");
    check("isURL('nope')", "false");
    check("cidr('10.0.0.0/8').containsIP('10.1.2.3') && ip('::1').isLoopback()", "true");
    check("'abc 123'.find('[0-9]+')", "123");
    check("'1 2 3'.findAll('[0-9]').size()", "3");
    check("sets.contains([1, 2, 3], [2]) && !sets.intersects([1], [2])", "true");
    check("cel.bind(x, self.replicas + 1, x * x)", "16");
    check("type(self.replicas) == int && type('') == string", "true");
    check("{'a': 1}.a + {'b': 2}['b']", "3");
    check("dyn(1) == 1u && 1.0 == 1", "true");
    check("string(12) + string(true) + int('3') == '12true3'", "error: no such overload");
    check("r'\\d' + \"\\x41\\u00e9\"", "\\dAé");
    check("'%s has %d'.format(['a', 2])", "a has 2");
    check("9223372036854775807 + 1", "error: overflow");
    check("1 / 0 > 0", "error: division by zero");
    check("self.ports[5].port", "error: out of bounds");
    check("nonsense(1)", "error: undeclared");
    check("other.x", "error: undeclared");
    check("1 +", "error: too early");
    check("'a", "error: without an end");
    check(&"(".repeat(5000), "error: too deeply");
    check("self.tags.all(a, self.tags.all(b, self.tags.all(c, a + b + c != '')))", "true");
}

/// Each of these would run for hours, or take all memory, were steps all alike.
#[test]
fn no_rule_runs_for_ever() {
    let list: Vec<u32> = (0..2_000).collect();
    let deep = json!([list, list, list, list]);
    let text = "a".repeat(30_000);
    let object = json!({ "l": list, "deep": deep, "many": vec![7; 200_000], "word": "aaaaaaaa", "text": text,
        "patterns": (0..500).map(|n| format!("(a{{20}}){{20}}{n}")).collect::<Vec<_>>() });
    let nested = "cel.bind(a, [1, 1], cel.bind(b, [a, a], cel.bind(c, [b, b], cel.bind(d, [c, c], cel.bind(e, [d, d, d, d, d, d, d, d], \
        cel.bind(f, [e, e, e, e, e, e, e, e], cel.bind(g, [f, f, f, f, f, f, f, f], cel.bind(h, [g, g, g, g, g, g, g, g], \
        cel.bind(i, [h, h, h, h, h, h, h, h], cel.bind(k, [i, i, i, i, i, i, i, i], k == k))))))))))";
    let cases = [
        "self.l.all(a, self.l.all(b, a + b >= 0))",
        "self.l.all(a, self.deep == self.deep)",
        "self.l.all(a, self.deep in [self.deep])",
        "self.many.distinct().size() == 1",
        "sets.contains(self.many, self.many)",
        "self.text.replace('a', self.text).size() > 0",
        "self.many.map(n, 'x').join(self.text).size() > 0",
        "self.patterns.all(p, !self.word.matches(p))",
        "self.l.all(a, self.text.matches('((a{99}){99}){99}'))",
        "self.l.all(a, self.text.split('').size() > 0)",
        "self.l.all(a, self.many.exists(m, true))",
        "cel.bind(t, self.text + 'x', self.many.all(m, t != ''))",
        "[self.text, self.text].all(a, cel.bind(b, a + a + a + a + a + a + a + a, cel.bind(c, b + b + b + b + b + b + b + b, \
            cel.bind(d, c + c + c + c + c + c + c + c, cel.bind(e, d + d + d + d + d + d + d + d, e.size() > 0)))))",
        nested,
    ];
    for text in cases {
        let expr = compile(text, &["self"]).unwrap_or_else(|why| panic!("{text}: {why}"));
        let why = evaluate(&expr, &[("self", Val::json(&object, None))]).map(|v| v.kind());
        assert_eq!(why, Err(TOO_LONG.into()), "{text}");
    }
    // A pattern is read once: to ask it of many is nothing.
    let expr = compile("self.many.all(n, 'abc'.matches('^[a-z]+$'))", &["self"]).unwrap();
    let answer = evaluate(&expr, &[("self", Val::json(&object, None))]).unwrap();
    assert_eq!(answer.as_bool(), Some(true));
}

#[test]
fn a_pattern_has_as_many_states_as_it_repeats() {
    for (pattern, states) in [
        ("^[a-z]+$", 1),
        ("abc", 3),
        ("a{3}", 3),
        ("(ab){10}", 20),
        ("((a{9}){9}){9}", 729),
        ("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", 63),
        ("\\d{2,}", 2),
        ("a{x", 1),
        ("((", 0),
    ] {
        assert_eq!(library::states(pattern), states, "{pattern}");
    }
}
