#![doc = include_str!("../CONTRACT.md")]

/// The rule of this number, without its reason, on one line. `None` if there is no such rule.
///
/// ```
/// let rule = annals_core::contract::rule(20);
/// assert_eq!(rule.as_deref(), Some("`Subscription::next` is cancel-safe."));
/// assert_eq!(annals_core::contract::rule(0), None);
/// ```
#[must_use]
pub fn rule(number: u8) -> Option<String> {
    let begin = format!("{number}. ");
    let mut lines = TEXT.lines().skip_while(|line| !line.starts_with(&begin));
    let first = lines.next()?.strip_prefix(&begin)?;
    let more = lines.take_while(|line| line.starts_with("   ")).map(str::trim);
    Some(std::iter::once(first).chain(more).collect::<Vec<_>>().join(" "))
}

/// The numbers of all rules.
pub fn rules() -> impl Iterator<Item = u8> {
    (1..=u8::MAX).take_while(|number| rule(*number).is_some())
}

const TEXT: &str = include_str!("../CONTRACT.md");
