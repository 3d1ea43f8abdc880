//! A unified diff, as `git apply` and `patch -p1` read it.

use std::fmt::Write;
use std::path::Path;

/// Lines around a change.
const CONTEXT: usize = 3;
/// More than this is written as one replacement: finding the smallest one would cost too much.
const CELLS_MAX: usize = 4_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Same,
    Gone,
    New,
}

/// The difference of two texts of one file; empty if there is none.
pub(super) fn diff(path: &Path, old: &str, new: &str) -> String {
    if old == new {
        return String::new();
    }
    let (a, b): (Vec<&str>, Vec<&str>) =
        (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let ops = script(&a, &b);
    let name = path.display();
    let mut out = format!("--- a/{name}\n+++ b/{name}\n");
    let changed: Vec<usize> =
        ops.iter().enumerate().filter(|(_, op)| **op != Op::Same).map(|(at, _)| at).collect();
    let mut at = 0;
    while let Some(first) = changed.get(at) {
        // Changes whose contexts touch are one hunk.
        let mut last = *first;
        while let Some(next) = changed.get(at).filter(|next| **next <= last + 2 * CONTEXT + 1) {
            last = *next;
            at += 1;
        }
        let (start, end) = (first.saturating_sub(CONTEXT), (last + CONTEXT + 1).min(ops.len()));
        let count =
            |range: std::ops::Range<usize>, not: Op| ops[range].iter().filter(|op| **op != not).count();
        let (before_a, before_b) = (count(0..start, Op::New), count(0..start, Op::Gone));
        let (in_a, in_b) = (count(start..end, Op::New), count(start..end, Op::Gone));
        let line = |before: usize, within: usize| if within == 0 { before } else { before + 1 };
        let _ = writeln!(out, "@@ -{},{in_a} +{},{in_b} @@", line(before_a, in_a), line(before_b, in_b));
        let (mut in_old, mut in_new) = (before_a, before_b);
        for op in &ops[start..end] {
            let (sign, text) = match op {
                Op::Same => (' ', a.get(in_old)),
                Op::Gone => ('-', a.get(in_old)),
                Op::New => ('+', b.get(in_new)),
            };
            in_old += usize::from(*op != Op::New);
            in_new += usize::from(*op != Op::Gone);
            let text = text.copied().unwrap_or("");
            out.push(sign);
            out.push_str(text);
            if !text.ends_with('\n') {
                out.push_str("\n\\ No newline at end of file\n");
            }
        }
    }
    out
}

/// How one becomes the other, line by line, with the fewest changes.
fn script(a: &[&str], b: &[&str]) -> Vec<Op> {
    let head = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let most = a.len().min(b.len()) - head;
    let tail = a.iter().rev().zip(b.iter().rev()).take(most).take_while(|(x, y)| x == y).count();
    let (x, y) = (&a[head..a.len() - tail], &b[head..b.len() - tail]);
    let mut ops = vec![Op::Same; head];
    if x.len().saturating_mul(y.len()) > CELLS_MAX {
        ops.extend(std::iter::repeat_n(Op::Gone, x.len()));
        ops.extend(std::iter::repeat_n(Op::New, y.len()));
    } else {
        // longest[i][j]: the longest common subsequence of what follows i and j.
        let width = y.len() + 1;
        let mut longest = vec![0u32; (x.len() + 1) * width];
        for i in (0..x.len()).rev() {
            for j in (0..y.len()).rev() {
                longest[i * width + j] = match x[i] == y[j] {
                    true => longest[(i + 1) * width + j + 1] + 1,
                    false => longest[(i + 1) * width + j].max(longest[i * width + j + 1]),
                };
            }
        }
        let (mut i, mut j) = (0, 0);
        while i < x.len() || j < y.len() {
            if i < x.len() && j < y.len() && x[i] == y[j] {
                ops.push(Op::Same);
                (i, j) = (i + 1, j + 1);
            } else if i < x.len()
                && (j == y.len() || longest[(i + 1) * width + j] >= longest[i * width + j + 1])
            {
                ops.push(Op::Gone);
                i += 1;
            } else {
                ops.push(Op::New);
                j += 1;
            }
        }
    }
    ops.extend(std::iter::repeat_n(Op::Same, tail));
    ops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_line_is_shown_with_its_surroundings() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n";
        let new = "a\nb\nc\nd\nE\nf\ng\nh\ni\nj\nk\nl";
        assert_eq!(
            diff(Path::new("x/y.yaml"), old, new),
            "--- a/x/y.yaml\n+++ b/x/y.yaml\n@@ -2,10 +2,11 @@\n b\n c\n d\n-e\n+E\n f\n g\n h\n i\n j\n k\n+l\n\\ No newline at end of file\n"
        );
        assert_eq!(diff(Path::new("x"), old, old), "");
        assert_eq!(diff(Path::new("x"), "", "a\n"), "--- a/x\n+++ b/x\n@@ -0,0 +1,1 @@\n+a\n");
    }
}
