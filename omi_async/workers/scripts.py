"""What the store does in one step: the scripts that run in the server.

Each is run again if its answer is lost, and so may be run twice with the same arguments. All moments are the
server's own, in milliseconds: the clocks of the machines differ, and one of them may be an hour wrong.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

import attrs

__all__ = ["IDENTIFY", "Script"]

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
-- ARGV: the name that the caller knows ('' for none), a new name, for how long a loss is remembered
local name = redis.call('GET', KEYS[1])
if not name then
  name = ARGV[2]
  redis.call('SET', KEYS[1], name)
end
if ARGV[1] ~= '' and ARGV[1] ~= name then
  redis.call('SET', KEYS[2], text(now), 'PX', ARGV[3])
end
return {name, redis.call('GET', KEYS[2]) or ''}
"""
)
"""Tells whether the data is the one that was there before. A server that restarts without its file looks like
a new one to each command: only somebody who remembers the old one can tell."""
