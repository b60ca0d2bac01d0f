//! How answers are counted, as the paper counts them: closed ones are right or wrong, open ones earn the share of the
//! truth's words that they say.
//!
//! Source: HealthGPT §5.1; the recall is LLaVA-Med's.

use std::collections::{BTreeMap, HashMap};

/// Points of an answer, 0 to 1.
pub fn points(closed: bool, truth: &str, said: &str) -> f64 {
    let (truth, said) = (words(truth), words(said));
    if !closed {
        return recall(&truth, &said);
    }
    // "No, there is none." answers no.
    let yes_or_no = |words: &[String]| matches!(words, [word] if word == "yes" || word == "no");
    let right = if yes_or_no(&truth) { said.first() == truth.first() } else { said == truth };
    f64::from(u8::from(right))
}

fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(String::from).collect()
}

/// Share of the truth's words that were said, each as often as it stands there.
fn recall(truth: &[String], said: &[String]) -> f64 {
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in said {
        *left.entry(word).or_default() += 1;
    }
    let found = truth.iter().filter(|word| {
        left.get_mut(word.as_str()).is_some_and(|n| {
            let found = *n > 0;
            *n -= usize::from(found);
            found
        })
    });
    if truth.is_empty() { 1.0 } else { found.count() as f64 / truth.len() as f64 }
}

/// A mean that grows.
#[derive(Clone, Copy, Default)]
pub struct Mean {
    pub n: usize,
    sum: f64,
}

impl Mean {
    fn add(&mut self, points: f64) {
        self.n += 1;
        self.sum += points;
    }

    /// Of nothing: none.
    pub fn value(self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }
}

/// Points by kind and by group.
#[derive(Default)]
pub struct Tally {
    pub closed: Mean,
    pub open: Mean,
    /// Group and kind.
    pub groups: BTreeMap<(String, bool), Mean>,
}

impl Tally {
    pub fn add(&mut self, group: &str, closed: bool, points: f64) {
        if closed { &mut self.closed } else { &mut self.open }.add(points);
        self.groups.entry((group.to_string(), closed)).or_default().add(points);
    }

    pub fn all(&self) -> Mean {
        Mean { n: self.closed.n + self.open.n, sum: self.closed.sum + self.open.sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_answers_are_right_or_wrong() {
        assert_eq!(points(true, "Yes", "yes."), 1.0);
        assert_eq!(points(true, "No", "No, there is no lesion."), 1.0);
        assert_eq!(points(true, "Yes", "No"), 0.0);
        assert_eq!(points(true, "yes", ""), 0.0);
        assert_eq!(points(true, "Left", "left"), 1.0);
        assert_eq!(points(true, "left lung", "left"), 0.0);
        assert_eq!(points(true, "left", "left or right"), 0.0);
    }

    #[test]
    fn open_answers_earn_the_share_that_they_say() {
        assert_eq!(points(false, "4 cm", "It lies at a depth of 4 cm."), 1.0);
        assert_eq!(points(false, "4 cm", "It lies at a depth of 14 cm."), 0.5);
        assert_eq!(points(false, "cyst", "A hypoechoic mass is seen."), 0.0);
        // A word that the truth has twice must be said twice.
        assert_eq!(points(false, "mass mass", "a mass"), 0.5);
    }

    #[test]
    fn the_mean_of_all_is_over_questions_not_over_kinds() {
        let mut tally = Tally::default();
        for points in [1.0, 1.0, 0.0] {
            tally.add("a", true, points);
        }
        tally.add("b", false, 0.5);
        assert_eq!(tally.all().value(), Some(0.625));
        assert_eq!(tally.groups.len(), 2);
        assert_eq!(Mean::default().value(), None);
    }
}
