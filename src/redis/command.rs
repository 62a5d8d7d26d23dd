//! One command with its arguments.

/// A command on its way: `Command::new("HGETALL").arg(key)`.
#[derive(Debug, Clone)]
pub struct Command(pub(super) redis::Cmd);

impl Command {
    pub fn new(name: &str) -> Self {
        Self(redis::cmd(name))
    }

    /// A Lua script over keys that lie in one hash slot. Sent whole each time: it is short, and Redis knows it by its hash.
    pub fn script(text: &str, keys: &[&str]) -> Self {
        Self::new("EVAL").arg(text).arg(keys.len()).arg(keys)
    }

    #[must_use]
    pub fn arg(mut self, value: impl redis::ToRedisArgs) -> Self {
        self.0.arg(value);
        self
    }
}
