//! Who is a member of the fleet, as Redis knows it at one moment; and who this process is.

use std::{
    collections::HashSet,
    fs,
    time::{Duration, Instant},
};

use super::{NodeCard, WhenCutOff};

/// The fleet at one moment.
#[derive(Debug, Clone, Default)]
pub struct Members {
    pub epoch: String,
    /// Since the log of this epoch began.
    pub age: Duration,
    /// In the order of their names.
    pub all: Vec<Member>,
    /// Who said goodbye, within the history.
    pub(super) left: HashSet<String>,
    /// When Redis had said so; `None` before the first look.
    pub(super) at: Option<Instant>,
}

/// One node.
#[derive(Debug, Clone)]
pub struct Member {
    pub card: NodeCard,
    pub state: MemberState,
    /// The last entry that it has said to have applied, in the log of now; `None` where it has said nothing of this log.
    pub position: Option<u64>,
    /// Since its last beat, as far as that is known.
    pub silent: Duration,
    /// How long it may be silent; its own configuration says so.
    pub(super) lease: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberState {
    Live,
    /// Its lease lapsed and it had not said that it leaves.
    Lost,
}

impl Members {
    /// From what the script gives: now, epoch, then node, `INCARNATION MS LEASE_MS`, `EPOCH N` and card of each; of those
    /// who have left, `left` in the place of the first.
    pub(super) fn parse(reply: Vec<String>) -> Self {
        let mut reply = reply.into_iter();
        let now: u64 = reply.next().and_then(|now| now.parse().ok()).unwrap_or_default();
        let epoch = reply.next().unwrap_or_default();
        let began = epoch.rsplit_once('-').and_then(|(_, at)| at.parse().ok()).unwrap_or(now);
        let (mut all, mut left) = (Vec::new(), HashSet::new());
        while let (Some(id), Some(seen), Some(ack), Some(card)) =
            (reply.next(), reply.next(), reply.next(), reply.next())
        {
            if seen == "left" {
                left.insert(id);
                continue;
            }
            let mut seen = seen.rsplit(' ').map(|number| number.parse::<u64>().unwrap_or_default());
            let (lease, at) = (seen.next().unwrap_or_default(), seen.next().unwrap_or_default());
            let silent = now.saturating_sub(at);
            let position = ack.split_once(' ').filter(|(of, _)| *of == epoch).and_then(|(_, n)| n.parse().ok());
            // Another version's card may say things that this one does not know.
            let card = serde_json::from_str(&card).unwrap_or_else(|_| NodeCard::unknown());
            let card = NodeCard { id, ..card };
            let state = if silent <= lease { MemberState::Live } else { MemberState::Lost };
            let (silent, lease) = (Duration::from_millis(silent), Duration::from_millis(lease));
            all.push(Member { card, state, position, silent, lease });
        }
        all.sort_by(|one, other| one.card.id.cmp(&other.card.id));
        Self { epoch, age: Duration::from_millis(now.saturating_sub(began)), all, left, at: None }
    }

    /// Takes over from a look that was so long ago whom Redis has forgotten, with or without the log, for the length of a history. Who
    /// has left has said so.
    pub(super) fn remember(&mut self, before: &Self, ago: Duration, history: Duration) {
        for member in &before.all {
            let is_missing = !self.all.iter().any(|known| known.card.id == member.card.id);
            let silent = member.silent + ago;
            if is_missing && !self.left.contains(&member.card.id) && silent <= history.max(member.lease) {
                // Until its lease lapses it may believe that it hears of everything.
                let state = if silent <= member.lease { MemberState::Live } else { MemberState::Lost };
                self.all.push(Member { state, position: None, silent, ..member.clone() });
            }
        }
        self.all.sort_by(|one, other| one.card.id.cmp(&other.card.id));
    }

    pub fn live(&self) -> impl Iterator<Item = &Member> {
        self.all.iter().filter(|member| member.state == MemberState::Live)
    }

    pub fn lost(&self) -> impl Iterator<Item = &Member> {
        self.all.iter().filter(|member| member.state == MemberState::Lost)
    }

    /// A log that has just begun may not know everybody yet: who was a member has a lease's time to say so, the longest of those
    /// that are known. `own` is this node's.
    pub(super) fn knows_everybody(&self, own: Duration) -> bool {
        self.age >= self.all.iter().map(|member| member.lease).fold(own, Duration::max)
    }

    /// How many live nodes have applied entry `n` of the log with this epoch.
    pub(super) fn acknowledged(&self, epoch: &str, n: u64) -> usize {
        // A log that has begun anew has made every node of it forget everything.
        let of_another_log = self.epoch != epoch;
        self.live().filter(|member| member.position.is_some_and(|position| of_another_log || position >= n)).count()
    }

    /// Is there a lost node that may still serve what it has?
    pub(super) fn someone_may_serve_older(&self) -> bool {
        self.lost().any(|member| member.card.when_cut_off == WhenCutOff::Serve)
    }
}

/// What no two processes share and no word in it has a space: machine, process, moment of its start, and chance.
pub(super) fn incarnation(random: &str) -> String {
    let (boot, space) = machine();
    let pid = std::process::id();
    format!("{boot}.{space}.{pid}.{}.{random}", started(pid).unwrap_or_default())
}

/// Is this the incarnation of a process that ran where we run, and does not any more?
pub(super) fn is_gone(incarnation: &str) -> bool {
    let (own_boot, own_space) = machine();
    let [boot, space, pid, start, _] = incarnation.split('.').collect::<Vec<_>>()[..] else { return false };
    let Ok(pid) = pid.parse() else { return false };
    !own_boot.is_empty()
        && boot == own_boot
        && space == own_space
        && started(pid).is_none_or(|started| started.to_string() != start)
}

/// This boot of this machine, and the space in which its process ids count.
fn machine() -> (String, String) {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default();
    let digits = |text: String| text.chars().filter(char::is_ascii_alphanumeric).collect();
    (digits(boot), digits(space))
}

/// When a process began, in ticks since the boot: field 22 of its `stat`, after the name in parentheses.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_has_ended_here_is_gone() {
        let own = incarnation("r");
        assert!(!own.contains(' ') && !is_gone(&own), "{own}");
        let mut parts: Vec<_> = own.split('.').map(str::to_owned).collect();
        parts[3] = "1".into();
        assert!(is_gone(&parts.join(".")), "another process has the id now");
        parts[0] = "elsewhere".into();
        assert!(!is_gone(&parts.join(".")), "nobody knows of other machines");
        assert!(!is_gone("what is this"));
    }

    #[test]
    fn a_node_is_lost_when_its_lease_has_lapsed() {
        let reply = ["10000", "e2", "b", "i 9000 500", "e1 7", "{}", "a", "i 9900 500", "e2 4", "{}"];
        let members = Members::parse(reply.map(str::to_owned).to_vec());
        let states: Vec<_> = members.all.iter().map(|m| (m.card.id.as_str(), m.state, m.position)).collect();
        assert_eq!(states, [("a", MemberState::Live, Some(4)), ("b", MemberState::Lost, None)]);
        assert_eq!((members.acknowledged("e2", 4), members.acknowledged("e2", 5)), (1, 0));
        assert!(members.someone_may_serve_older(), "what it does is not known");
    }

    const HISTORY: Duration = Duration::from_secs(10);

    #[test]
    fn who_was_forgotten_is_live_for_its_lease_then_lost_and_gone_after_the_history() {
        let look = |epoch: &str, nodes: &[&str]| {
            let mut reply = vec!["10000".to_owned(), epoch.to_owned()];
            for node in nodes {
                reply.extend([*node, "i 9900 5000", "e1-5000 7", "{}"].map(str::to_owned));
            }
            Members::parse(reply)
        };
        let mut known = look("e1-5000", &["b"]);
        for (seconds, live, lost) in [(4, 1, 0), (1, 0, 1), (4, 0, 1), (1, 0, 0)] {
            let mut now = look("e2-9000", &[]);
            now.remember(&known, Duration::from_secs(seconds), HISTORY);
            assert_eq!((now.live().count(), now.lost().count()), (live, lost), "after {seconds} s more");
            assert_eq!(now.acknowledged("e1-5000", 7), 0, "what it had said was of another log");
            known = now;
        }
    }

    #[test]
    fn everybody_is_known_when_the_longest_lease_has_passed_since_the_log_began() {
        for (age, lease, own, expected) in
            [(499, "100", 500, false), (500, "100", 500, true), (999, "1000", 500, false), (1000, "1000", 500, true)]
        {
            let (now, seen) = ((5000 + age).to_string(), format!("i {} {lease}", 5000 + age));
            let members = Members::parse([&now, "e1-5000", "a", &seen, "", "{}"].map(str::to_owned).to_vec());
            assert_eq!(members.knows_everybody(Duration::from_millis(own)), expected, "{age} {lease} {own}");
        }
    }

    #[test]
    fn who_was_forgotten_with_the_log_or_without_it_is_lost_and_who_left_is_not() {
        let look_at = |epoch: &str, nodes: &[&str], left: &[&str]| {
            let mut reply = vec!["10000".to_owned(), epoch.to_owned()];
            for node in nodes {
                reply.extend([*node, "i 9900 500", "", "{}"].map(str::to_owned));
            }
            for node in left {
                reply.extend([*node, "left", "", ""].map(str::to_owned));
            }
            Members::parse(reply)
        };
        let look = |epoch: &str, nodes: &[&str]| look_at(epoch, nodes, &[]);
        let before = look("e1-5000", &["a", "b"]);
        assert_eq!(before.age, Duration::from_secs(5));
        let second = Duration::from_secs(1);
        let mut same = look_at("e1-5000", &["a"], &["b"]);
        same.remember(&before, second, HISTORY);
        assert_eq!(same.lost().count(), 0, "b has left");
        let mut without_a_word = look("e1-5000", &["a"]);
        without_a_word.remember(&before, second, HISTORY);
        assert_eq!(without_a_word.lost().count(), 1, "Redis knows less of the same log");
        let mut anew = look("e2-9000", &["a"]);
        anew.remember(&before, second, HISTORY);
        assert_eq!(anew.lost().map(|member| member.card.id.as_str()).collect::<Vec<_>>(), ["b"]);
        let mut later = look("e2-9000", &["a"]);
        later.remember(&anew, second, HISTORY);
        assert_eq!(later.lost().count(), 1, "still");
        let mut back = look("e2-9000", &["a", "b"]);
        back.remember(&later, second, HISTORY);
        assert_eq!((back.lost().count(), back.all.len()), (0, 2));
    }
}
