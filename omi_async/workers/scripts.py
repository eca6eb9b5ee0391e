"""What the store does in one step: the scripts that run in the server.

Each is run again if its answer is lost, and so may be run twice with the same arguments; the first time may
come last, long after: a network delivers what a closed connection had left to say. All moments are the
server's own, in milliseconds: the clocks of the machines differ, and one of them may be an hour wrong.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

import attrs

__all__ = ["FAIL", "IDENTIFY", "READ", "RELEASE", "SNAPSHOT", "TAKE", "WRITE", "Script"]

NOW: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function text(number) return string.format('%.0f', number) end  -- tostring() would write 1.7e+12
"""


@attrs.frozen
class Script:
    """A script of Lua.

    Attributes:
        text: the whole of it.
        sha: the name by which the server knows it, once it has run.
    """

    text: str
    sha: str = attrs.field(init=False)

    @sha.default
    def _hash(self) -> str:
        return sha1(self.text.encode(), usedforsecurity=False).hexdigest()


IDENTIFY: Final = Script(
    NOW
    + """
-- KEYS: the name of the data, the moment of its loss
-- ARGV: the name that the caller knows ('' for none), a new name, for how long a loss is remembered, and for
--   how long the name is
local name = redis.call('GET', KEYS[1]) or ARGV[2]
redis.call('SET', KEYS[1], name, 'PX', ARGV[4])
if ARGV[1] ~= '' and ARGV[1] ~= name then
  redis.call('SET', KEYS[2], text(now), 'PX', ARGV[3])
end
return {name, redis.call('GET', KEYS[2]) or ''}
"""
)
"""Tells whether the data is the one that was there before. A server that restarts without its file looks like
a new one to each command: only somebody who remembers the old one can tell."""


TAKE: Final = Script(
    NOW
    + """
-- KEYS: the part, its rows, the import
-- ARGV: holder, lease, the longest call, how long it is kept (ms each), server, number of the part, parts,
--       whether it was delivered before, when parts that are not known may be begun
local part = {}
local fields = redis.call('HGETALL', KEYS[1])
for at = 1, #fields, 2 do part[fields[at]] = fields[at + 1] end
local parts = redis.call('HGET', KEYS[3], 'parts')
if parts and parts ~= ARGV[7] then return {'split', text(now), parts} end
if part.server and part.server ~= ARGV[5] then return {'server', text(now), part.server} end
if part.state == 'done' then return {'done', text(now), part.report} end
local rows = redis.call('EXISTS', KEYS[2])
if part.holder == ARGV[1] then  -- the answer to the first try was lost
  redis.call('HSET', KEYS[1], 'until', text(now + ARGV[2]))
  return {'taken', text(now), part.fence, part.report or '', rows, tonumber(part.suspect)}
end
if part.fence then
  local free = tonumber(part['until'])
  if tonumber(part.out) > 0 then free = free + tonumber(part.longest) end
  if now < free then return {'held', text(now), text(free)} end
end
local new = not part.fence
if new and now < tonumber(ARGV[9]) then return {'held', text(now), ARGV[9]} end
redis.call('HSET', KEYS[3], 'parts', ARGV[7], ARGV[6], '')
redis.call('PEXPIRE', KEYS[3], ARGV[4])
if redis.call('HEXISTS', KEYS[3], 'stop') == 1 then
  redis.call('HSET', KEYS[1], 'state', 'stopped', 'server', ARGV[5])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return {'stopped', text(now), part.report or ''}
end
local suspect = part.suspect or '0'
if (new and ARGV[8] == '1') or redis.call('HLEN', KEYS[2]) < tonumber(part.rows or 0) then suspect = '1' end
-- From the clock, so that it grows also over a loss of all data: an old owner's fence never fits again.
local fence = text(math.max(tonumber(part.fence or 0) + 1, now))
redis.call('HSET', KEYS[1], 'fence', fence, 'holder', ARGV[1], 'until', text(now + ARGV[2]), 'out', '0',
  'longest', ARGV[3], 'server', ARGV[5], 'suspect', suspect, 'state', 'running', 'written', '0')
redis.call('HDEL', KEYS[1], 'error', 'resume_at')
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return {'taken', text(now), fence, part.report or '', rows, tonumber(suspect)}
"""
)
"""Gives a part to a worker, or says why not. Whether the one before may still have a call on the wire is
decided here, at one moment of one clock: of two workers that ask at the same time, one gets it."""

HELD: Final = """
-- KEYS: the part, its rows, the import. ARGV: fence, number of the write, and more
local part = redis.call('HMGET', KEYS[1], 'fence', 'until', 'out', 'longest', 'written', 'rows')
if part[1] ~= ARGV[1] then
  local free = tonumber(part[2] or 0)
  if tonumber(part[3] or 0) > 0 then free = free + tonumber(part[4]) end
  return {'lost', text(now), part[1] and 1 or 0, text(free)}
end
-- A worker's writes follow one another: if a later one was done, this one is a repetition that comes late. It
-- would put what was settled in doubt again, or take back that a call is on the wire.
local late = tonumber(ARGV[2]) <= tonumber(part[5])
"""

WRITE: Final = Script(
    NOW
    + HELD
    + """
-- ARGV: fence, number, lease, how long it is kept (ms each), calls on the wire, report, then keys and values
--   of rows
if late then return {'held', text(now), redis.call('HEXISTS', KEYS[3], 'stop')} end
redis.call('HSET', KEYS[1], 'written', ARGV[2], 'until', text(now + ARGV[3]), 'out', ARGV[5])
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'report', ARGV[6], 'at', text(now)) end
if redis.call('HLEN', KEYS[2]) < tonumber(part[6] or 0) then redis.call('HSET', KEYS[1], 'suspect', '1') end
for at = 7, #ARGV, 2 do
  local key, value = ARGV[at], ARGV[at + 1]
  if value == '' then
    redis.call('HDEL', KEYS[2], key)
  else
    if string.find(value, '^[sua]$') then  -- in doubt: since the first call that may have stored it
      local before = redis.call('HGET', KEYS[2], key)
      local in_doubt = before and string.match(before, '^[sua](.*)')
      value = value .. (in_doubt or text(now))
    end
    redis.call('HSET', KEYS[2], key, value)
  end
end
redis.call('HSET', KEYS[1], 'rows', redis.call('HLEN', KEYS[2]))
for at = 1, 3 do redis.call('PEXPIRE', KEYS[at], ARGV[4]) end
return {'held', text(now), redis.call('HEXISTS', KEYS[3], 'stop')}
"""
)
"""Writes rows, and renews the lease with them; without rows, it only renews the lease. An old fence is
refused before anything is written. The number of rows is kept: if there are fewer, the server has thrown some
out. That there are none says nothing, since what was certainly not stored has none."""

READ: Final = Script("return redis.call('HMGET', KEYS[1], unpack(ARGV))")
"""Reads rows. No fence is asked for: only the worker itself writes them, and it looks before it does."""

RELEASE: Final = Script(
    NOW
    + HELD
    + """
-- ARGV: fence, number, how long it is kept (ms), state, report, error, resume_at
if late then return {'held', text(now), redis.call('HEXISTS', KEYS[3], 'stop')} end
redis.call('HSET', KEYS[1], 'written', ARGV[2], 'until', '0', 'out', '0', 'holder', '', 'state', ARGV[4],
  'report', ARGV[5], 'error', ARGV[6], 'resume_at', ARGV[7], 'at', text(now))
for at = 1, 3 do redis.call('PEXPIRE', KEYS[at], ARGV[3]) end
return {'held', text(now), redis.call('HEXISTS', KEYS[3], 'stop')}
"""
)
"""Gives a part back with what has become of it. The fence stays, so that whoever is late is told so."""

FAIL: Final = Script(
    NOW
    + """
-- KEYS: the part, the import
-- ARGV: number of the part, why it failed, how long it is kept (ms)
local part = redis.call('HMGET', KEYS[1], 'state', 'until')
if part[1] == 'done' or (part[1] == 'running' and now < tonumber(part[2])) then return {} end
redis.call('HSET', KEYS[1], 'state', 'failed', 'error', ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], '')
for at = 1, 2 do redis.call('PEXPIRE', KEYS[at], ARGV[3]) end
return {}
"""
)
"""Notes that a part has failed before it could be taken. One that another worker is at has not failed."""

SNAPSHOT: Final = Script(
    NOW
    + """
-- KEYS: the import. ARGV: what the keys of its parts begin with
local whole = redis.call('HGETALL', KEYS[1])
local answer = {text(now), whole}
local numbers = {}
for at = 1, #whole, 2 do
  local number, parts = tonumber(whole[at]), whole[at] == 'parts' and tonumber(whole[at + 1]) or 0
  if number then numbers[number] = true end
  for other = 0, parts - 1 do numbers[other] = true end
end
for number in pairs(numbers) do
  table.insert(answer, {number, redis.call('HGETALL', ARGV[1] .. number)})
end
return answer
"""
)
"""Reads all that is known of an import at one moment. What its parts are is known only by then: their keys
cannot be named beforehand, but have the same tag."""
