//! Which events somebody wants.

use serde::{Deserialize, Serialize};

use super::Alert;
use super::line::{Container, means};
use crate::logs::Log;

/// What was done to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// An alert: it was denied.
    Block,
    /// An alert: it was told.
    Audit,
    /// An access that no security module denied.
    Passed,
    /// One that one did, a policy or another.
    Denied,
}

/// All of it has to be so; what is not said may be as it likes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Filter {
    /// Of this container: its id, the beginning of its id, or its name.
    pub container: Option<String>,
    /// Of containers of this namespace.
    pub namespace: Option<String>,
    /// Of the pod of this name.
    pub pod: Option<String>,
    /// Of containers whose image's name has this in it.
    pub image: Option<String>,
    /// Alerts or accesses with this verdict.
    pub verdict: Option<Verdict>,
    /// Alerts of the policy of this name, or as `POLICY:LINE` of its rule in that line of its file.
    pub rule: Option<String>,
}

impl Filter {
    /// Whether an alert is wanted.
    #[must_use]
    pub fn takes(&self, alert: &Alert) -> bool {
        let verdict = if alert.is_denial() { Verdict::Block } else { Verdict::Audit };
        let policy = alert.policy();
        let of_rule = |wanted: &String| match alert.rule() {
            Some(rule) => wanted == policy || *wanted == format!("{policy}:{}", rule.origin.line),
            None => wanted == policy,
        };
        self.takes_container(alert.container())
            && self.verdict.is_none_or(|wanted| wanted == verdict)
            && self.rule.as_ref().is_none_or(of_rule)
    }

    /// Whether an event that is no alert is wanted. No rule is behind it, and only an access has a verdict.
    #[must_use]
    pub fn takes_log(&self, log: &Log) -> bool {
        let verdict = log.is_denied().map(|is_denied| if is_denied { Verdict::Denied } else { Verdict::Passed });
        self.rule.is_none() && self.verdict.is_none_or(|wanted| verdict == Some(wanted)) && self.takes_container(log.container())
    }

    fn takes_container(&self, container: Option<&Container>) -> bool {
        let Filter { container: name, namespace, pod, image, .. } = self;
        let Some(container) = container else {
            return [name, namespace, pod, image].into_iter().all(Option::is_none);
        };
        name.as_ref().is_none_or(|name| means(name, &container.id, &container.name))
            && namespace.as_ref().is_none_or(|namespace| *namespace == container.namespace)
            && pod.as_ref().is_none_or(|pod| *pod == container.pod)
            && image.as_ref().is_none_or(|image| container.image.contains(image))
    }
}

#[cfg(test)]
mod tests {
    use portcullis_ebpf::abi::op;

    use super::*;
    use crate::fake;

    #[test]
    fn all_that_is_said_has_to_be_so() {
        let container = Container {
            id: "aaaa".to_owned(),
            name: "web".to_owned(),
            image: "docker.io/library/nginx:1.27".to_owned(),
            namespace: "shop".to_owned(),
            pod: "web-0".to_owned(),
            ..Container::default()
        };
        let (alert, log) = (fake::alert_in(1, container.clone()), fake::executed(Some(container)));
        let some = |text: &str| Some(text.to_owned());
        let takes = |filter: Filter| (filter.takes(&alert), filter.takes_log(&log));
        assert_eq!(takes(Filter::default()), (true, true));
        for (wanted, filter) in [
            (true, Filter { container: some("aaa"), ..Filter::default() }),
            (false, Filter { container: some("bbb"), ..Filter::default() }),
            (true, Filter { namespace: some("shop"), pod: some("web-0"), image: some("nginx"), ..Filter::default() }),
            (false, Filter { namespace: some("sho"), ..Filter::default() }),
            (false, Filter { namespace: some("shop"), pod: some("web"), ..Filter::default() }),
            (false, Filter { image: some("redis"), ..Filter::default() }),
        ] {
            assert_eq!(takes(filter.clone()), (wanted, wanted), "{filter:?}");
        }
        let of_nobody = fake::executed(None);
        assert!(Filter::default().takes_log(&of_nobody));
        assert!(!Filter { image: some(""), ..Filter::default() }.takes_log(&of_nobody), "what nobody knows is no image");
    }

    #[test]
    fn verdicts_and_rules_are_those_of_alerts() {
        let (alert, log) = (fake::alert_by("no-shadow", 12), fake::executed(None));
        let some = |text: &str| Some(text.to_owned());
        for (wanted, filter) in [
            (true, Filter { verdict: Some(Verdict::Block), ..Filter::default() }),
            (false, Filter { verdict: Some(Verdict::Audit), ..Filter::default() }),
            (true, Filter { rule: some("no-shadow"), ..Filter::default() }),
            (true, Filter { rule: some("no-shadow:12"), ..Filter::default() }),
            (false, Filter { rule: some("no-shadow:13"), ..Filter::default() }),
            (false, Filter { rule: some("no"), ..Filter::default() }),
        ] {
            assert_eq!((filter.takes(&alert), filter.takes_log(&log)), (wanted, false), "{filter:?}");
        }
    }

    #[test]
    fn accesses_have_verdicts_of_their_own_and_no_rules() {
        let mut event = fake::access(op::READ, b"/etc/shadow");
        let passed = fake::accessed(None, &event);
        event.header.result = 13;
        let denied = fake::accessed(None, &event);
        let takes = |filter: Filter| (filter.takes_log(&passed), filter.takes_log(&denied));
        let with = |verdict| Filter { verdict: Some(verdict), ..Filter::default() };
        assert_eq!(takes(with(Verdict::Passed)), (true, false));
        assert_eq!(takes(with(Verdict::Denied)), (false, true));
        assert_eq!(takes(with(Verdict::Block)), (false, false), "that is an alert");
        assert!(!with(Verdict::Denied).takes(&fake::alert_by("no-shadow", 12)), "and this an access");
        assert_eq!(takes(Filter { rule: Some(String::new()), ..with(Verdict::Denied) }), (false, false));
    }
}
