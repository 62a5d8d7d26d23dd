//! The keys of a fleet in Redis, and the Lua that changes them. All lie in one hash slot.
//!
//! | key | what |
//! |---|---|
//! | `{PREFIXpurge}:log` | the stream; the id of an entry is `N-0`, its fields are `id`, `prev`, `node`, `at`, `order`, `logged` |
//! | `{PREFIXpurge}:n` | the number of the last entry |
//! | `{PREFIXpurge}:epoch` | `WORD-MS`: chance, and when the log began by Redis's clock |
//! | `{PREFIXpurge}:nodes` | node -> its card (JSON) |
//! | `{PREFIXpurge}:seen` | node -> `INCARNATION MS LEASE_MS`, by Redis's clock |
//! | `{PREFIXpurge}:ack` | node -> `EPOCH N`, what it has applied |
//! | `{PREFIXpurge}:left` | node that said goodbye -> when, in ms by Redis's clock |

use std::time::Duration;

use crate::redis::Command;

/// Entries that the log holds whatever `fleet.history` says; a node further behind counts everything as purged.
const LOG_MAX: usize = 100_000;

/// Entries read at once; one of them may be as large as a request to the control listener.
const READ_MAX: usize = 100;

/// The names of the keys.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    log: String,
    n: String,
    epoch: String,
    nodes: String,
    seen: String,
    ack: String,
    left: String,
}

/// What begins a log anew with `fresh` as its epoch, after `from` entries; and what finds the id of an entry.
const BEGIN: &str = r"
local function id_of(number)
  local found = redis.call('XRANGE', KEYS[1], number .. '-0', number .. '-0')
  if not found[1] then return nil end
  for i = 1, #found[1][2], 2 do if found[1][2][i] == 'id' then return found[1][2][i + 1] end end
end
local function begin(fresh, from)
  local t = redis.call('TIME')
  local ms = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
  redis.call('SET', KEYS[3], fresh .. '-' .. ms)
  redis.call('DEL', KEYS[1])
  redis.call('SET', KEYS[2], from + 1)
  redis.call('XADD', KEYS[1], (from + 1) .. '-0', 'id', fresh, 'prev', '', 'node', '', 'at', ms, 'order', '{}', 'logged', ms)
end
";

/// ARGV: fresh, id, node, at, order, history in ms, the most entries. Gives epoch, n, and the id of the entry before. An entry goes
/// when the one after it is older than the history: until then it is the place of a node that missed no more than that.
const PUBLISH: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if not redis.call('GET', KEYS[3]) then begin(ARGV[1], tonumber(redis.call('GET', KEYS[2]) or '0')) end
local n = redis.call('INCR', KEYS[2])
local prev = id_of(n - 1)
local function add()
  return redis.pcall('XADD', KEYS[1], n .. '-0', 'id', ARGV[2], 'prev', prev, 'node', ARGV[3], 'at', ARGV[4], 'order', ARGV[5], 'logged', string.format('%.0f', now))
end
local added = prev and add()
if not added or (type(added) == 'table' and added.err) then
  begin(ARGV[1], n)
  n = redis.call('INCR', KEYS[2])
  prev = ARGV[1]
  add()
end
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 5)
for following = 2, #oldest do
  local logged = 0
  local fields = oldest[following][2]
  for i = 1, #fields, 2 do if fields[i] == 'logged' then logged = tonumber(fields[i + 1]) or 0 end end
  if logged >= now - tonumber(ARGV[6]) then break end
  redis.call('XDEL', KEYS[1], oldest[following - 1][1])
end
redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[7])
return { redis.call('GET', KEYS[3]), tostring(n), prev }
";

/// ARGV: fresh, node, incarnation, lease in ms, card, epoch, n, id of the entry n. Gives `{ 'held', INCARNATION MS, now }` where another
/// node has the name, else epoch, last n, id of the last entry, and 1 where the log goes on from the caller's place, 0 where not.
const BEAT: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local held = redis.call('HGET', KEYS[5], ARGV[2])
if held then
  local who, at, lease = string.match(held, '^(%S+) (%d+) (%d+)$')
  if who and who ~= ARGV[3] and tonumber(at) + tonumber(lease) > now and ARGV[9] ~= held then return { 'held', held } end
end
local epoch = redis.call('GET', KEYS[3])
local n = tonumber(redis.call('GET', KEYS[2]) or '0')
local mine = tonumber(ARGV[7])
if not epoch or not id_of(n) or (ARGV[6] == epoch and (mine > n or (id_of(mine) or ARGV[8]) ~= ARGV[8])) then
  begin(ARGV[1], math.max(n, mine))
  epoch = redis.call('GET', KEYS[3])
  n = math.max(n, mine) + 1
end
local goes_on = 0
if ARGV[6] == epoch and id_of(mine) == ARGV[8] then goes_on = 1 end
redis.call('HSET', KEYS[5], ARGV[2], ARGV[3] .. ' ' .. string.format('%.0f', now) .. ' ' .. ARGV[4])
redis.call('HSET', KEYS[4], ARGV[2], ARGV[5])
redis.call('HDEL', KEYS[7], ARGV[2])
if goes_on == 1 then redis.call('HSET', KEYS[6], ARGV[2], epoch .. ' ' .. ARGV[7]) else redis.call('HDEL', KEYS[6], ARGV[2]) end
return { epoch, tostring(n), id_of(n), tostring(goes_on) }
";

/// ARGV: node, incarnation. The mark tells who has left from who was lost with a part of the keys.
const LEAVE: &str = r"
local t = redis.call('TIME')
local held = redis.call('HGET', KEYS[5], ARGV[1])
if held and string.match(held, '^(%S+) ') == ARGV[2] then
  redis.call('HDEL', KEYS[4], ARGV[1])
  redis.call('HDEL', KEYS[5], ARGV[1])
  redis.call('HDEL', KEYS[6], ARGV[1])
  redis.call('HSET', KEYS[7], ARGV[1], string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)))
end
return 1
";

/// ARGV: history in ms. Forgets who is silent for longer than that and than its lease, and gives now, epoch and who is there:
/// node, seen, ack, card, ...; then those who have left, with `left` and nothing in the place of these.
const MEMBERS: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local all = { string.format('%.0f', now), redis.call('GET', KEYS[3]) or '' }
local seen = redis.call('HGETALL', KEYS[5])
for i = 1, #seen, 2 do
  local at, lease = string.match(seen[i + 1], '^%S+ (%d+) (%d+)$')
  if (tonumber(at) or 0) + math.max(tonumber(ARGV[1]), tonumber(lease) or 0) < now then
    redis.call('HDEL', KEYS[4], seen[i])
    redis.call('HDEL', KEYS[5], seen[i])
    redis.call('HDEL', KEYS[6], seen[i])
  else
    table.insert(all, seen[i])
    table.insert(all, seen[i + 1])
    table.insert(all, redis.call('HGET', KEYS[6], seen[i]) or '')
    table.insert(all, redis.call('HGET', KEYS[4], seen[i]) or '{}')
  end
end
local left = redis.call('HGETALL', KEYS[7])
for i = 1, #left, 2 do
  if (tonumber(left[i + 1]) or 0) + tonumber(ARGV[1]) < now then
    redis.call('HDEL', KEYS[7], left[i])
  elseif redis.call('HEXISTS', KEYS[5], left[i]) == 0 then
    table.insert(all, left[i])
    table.insert(all, 'left')
    table.insert(all, '')
    table.insert(all, '')
  end
end
return all
";

/// What a beat says of the node that sends it.
pub(super) struct Beat<'a> {
    pub(super) fresh: &'a str,
    pub(super) node: &'a str,
    pub(super) incarnation: &'a str,
    pub(super) lease: Duration,
    pub(super) card: &'a str,
    pub(super) epoch: &'a str,
    pub(super) n: u64,
    pub(super) id: &'a str,
    /// The lease that it takes over, as Redis told it.
    pub(super) takes_over: &'a str,
}

/// An entry to be.
pub(super) struct Publication<'a> {
    pub(super) fresh: &'a str,
    pub(super) id: &'a str,
    pub(super) node: &'a str,
    /// Milliseconds since the epoch, by the clock of the node that issues it.
    pub(super) at: u64,
    pub(super) order: &'a str,
    pub(super) history: Duration,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        // Braces of the prefix would move the hash tag.
        let tag = format!("{{{}purge}}", prefix.replace(['{', '}'], ""));
        let key = |name: &str| format!("{tag}:{name}");
        let [log, n, epoch, nodes, seen, ack, left] = ["log", "n", "epoch", "nodes", "seen", "ack", "left"].map(key);
        Self { log, n, epoch, nodes, seen, ack, left }
    }

    fn script(&self, text: &str) -> Command {
        let keys = [&self.log, &self.n, &self.epoch, &self.nodes, &self.seen, &self.ack, &self.left];
        Command::script(text, &keys.map(String::as_str))
    }

    pub(super) fn publish(&self, what: &Publication<'_>) -> Command {
        self.script(&format!("{BEGIN}{PUBLISH}"))
            .arg(what.fresh)
            .arg(what.id)
            .arg(what.node)
            .arg(what.at)
            .arg(what.order)
            .arg(millis(what.history))
            .arg(LOG_MAX)
    }

    pub(super) fn beat(&self, beat: &Beat<'_>) -> Command {
        self.script(&format!("{BEGIN}{BEAT}"))
            .arg(beat.fresh)
            .arg(beat.node)
            .arg(beat.incarnation)
            .arg(millis(beat.lease))
            .arg(beat.card)
            .arg(beat.epoch)
            .arg(beat.n)
            .arg(beat.id)
            .arg(beat.takes_over)
    }

    pub(super) fn leave(&self, node: &str, incarnation: &str) -> Command {
        self.script(LEAVE).arg(node).arg(incarnation)
    }

    pub(super) fn members(&self, history: Duration) -> Command {
        self.script(MEMBERS).arg(millis(history))
    }

    /// What follows entry `n`, waiting for it up to `wait`.
    pub(super) fn read(&self, n: u64, wait: Duration) -> Command {
        Command::new("XREAD")
            .arg("COUNT")
            .arg(READ_MAX)
            .arg("BLOCK")
            .arg(millis(wait))
            .arg("STREAMS")
            .arg(&self.log)
            .arg(format!("{n}-0"))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
