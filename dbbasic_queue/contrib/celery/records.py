"""What Redis knows of each job: a hash, so that no id runs twice, and none is lost unseen.

`k` is the claim of the row for which this stands, `state` one of

    new        is about to be sent, or its sender died in it
    sent       waits in the engine
    running    a worker has it; while it lives the lease beside the hash does
    done       `cells` are the outcome, `number` the attempt
    cancelled  refused by whoever comes for it
    recalled   as cancelled, but its row is to be pending again

Each step from one state to another is one script, so it happens for exactly one of several askers.
A finished one is kept for `keep` seconds: so long a message that is delivered again is refused.
"""

import json
import time

import redis

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

PREFIX = "dbbasic-queue:"
_UNFINISHED = 90 * 86400  # seconds after which what nobody finishes is forgotten
_AT_ONCE = 1000  # ids in one round trip

# KEYS: the hash, the lease.  ARGV: k, whose token, lease in ms, now.
_BEGIN = """
local k, state = unpack(redis.call('HMGET', KEYS[1], 'k', 'state'))
if not k then return 'unknown' end
if k ~= ARGV[1] then return 'old' end
if state == 'running' and redis.call('EXISTS', KEYS[2]) == 0 then return 'died' end
if state ~= 'new' and state ~= 'sent' then return state end
redis.call('HSET', KEYS[1], 'state', 'running', 'worker', ARGV[2], 'started', ARGV[4])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 'go'
"""
# ARGV: token, lease in ms, k.  A Redis that has lost everything learns again what runs.
_RENEW = """
local k, worker = unpack(redis.call('HMGET', KEYS[1], 'k', 'worker'))
if k and worker ~= ARGV[1] then return 0 end
if not k then
    redis.call('HSET', KEYS[1], 'k', ARGV[3], 'state', 'running', 'worker', ARGV[1])
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1
"""
# ARGV: k, number, cells, seconds to keep.
_FINISH = """
local k = redis.call('HGET', KEYS[1], 'k')
if k and k ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'k', ARGV[1], 'state', 'done', 'number', ARGV[2], 'cells', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('DEL', KEYS[2])
return 1
"""
# ARGV: k, the new state, seconds to keep.
_STOP = """
local k, state = unpack(redis.call('HMGET', KEYS[1], 'k', 'state'))
if k and k == ARGV[1] and state ~= 'new' and state ~= 'sent' then
    return state == ARGV[2] and 1 or 0
end
redis.call('HSET', KEYS[1], 'k', ARGV[1], 'state', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('DEL', KEYS[2])
return 1
"""
# ARGV: k, now.
_SENT = """
local k, state = unpack(redis.call('HMGET', KEYS[1], 'k', 'state'))
if k == ARGV[1] and (state == 'new' or state == 'sent') then
    redis.call('HSET', KEYS[1], 'state', 'sent', 'sent', ARGV[2])
end
return 1
"""
# ARGV: k, seconds to keep, whether only a new id is good, then fields and their values.
_PROMISE = """
local k = redis.call('HGET', KEYS[1], 'k')
if k and ARGV[3] == 'new' then return 0 end
if k == ARGV[1] then return 1 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'k', ARGV[1], 'state', 'new', unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""


class Record:
    """What Redis knew of one job when it was asked; `k` is "" where it knew nothing."""

    def __init__(self, fields: "Mapping[str, str]", leased: bool) -> None:
        self.k = fields.get("k", "")
        self.state = fields.get("state", "")
        self.sent = float(fields.get("sent") or 0)
        self.leased = leased
        self.number = int(fields.get("number") or 0)
        self.cells: dict[str, str] = json.loads(fields.get("cells") or "{}")
        self.recorded: dict[str, str] = json.loads(fields.get("recorded") or "{}")
        self.row: dict[str, str] = json.loads(fields.get("row") or "{}")


class Records:
    """The records of one Redis; every call may raise redis.RedisError."""

    def __init__(self, client: "redis.Redis", keep: float) -> None:
        self._client = client
        self._keep = int(keep)
        names = ("begin", "renew", "finish", "stop", "sent", "promise")
        texts = (_BEGIN, _RENEW, _FINISH, _STOP, _SENT, _PROMISE)
        self._scripts = {
            name: client.register_script(text) for name, text in zip(names, texts, strict=True)
        }

    def _call(self, script: str, id: str, *given: "Any", pipe: "Any" = None) -> "Any":
        keys = [PREFIX + id, f"{PREFIX}{id}:lease"]
        return self._scripts[script](keys=keys, args=given, client=pipe)

    def ping(self) -> None:
        self._client.ping()

    # --- who forwards, or enqueues

    def promise(
        self,
        marks: "Mapping[str, str]",
        rows: "Mapping[str, Any]" = {},  # noqa: B006 (never changed)
        *,
        new: bool = False,
    ) -> bool:
        """Say of each id that its message for claim k is about to be sent.

        `new`: no id may be known yet; False when one was, and nothing was said of that.
        """
        given = [_UNFINISHED, "new" if new else "", "sent", time.time()]
        with self._client.pipeline(transaction=False) as pipe:
            for id, k in marks.items():
                more = ["row", json.dumps(rows[id])] if id in rows else []
                self._call("promise", id, k, *given, *more, pipe=pipe)
            return all(pipe.execute())

    def sent(self, marks: "Mapping[str, str]") -> None:
        """Say that the engine has the message of each."""
        with self._client.pipeline(transaction=False) as pipe:
            for id, k in marks.items():
                self._call("sent", id, k, time.time(), pipe=pipe)
            pipe.execute()

    def read(self, ids: "Iterable[str]") -> "dict[str, Record]":
        """Return what is known of each id."""
        found: dict[str, Record] = {}
        asked = list(ids)
        for at in range(0, len(asked), _AT_ONCE):
            some = asked[at : at + _AT_ONCE]
            with self._client.pipeline(transaction=False) as pipe:
                for id in some:
                    pipe.hgetall(PREFIX + id)
                    pipe.exists(f"{PREFIX}{id}:lease")
                told = pipe.execute()
            for number, id in enumerate(some):
                fields = {key.decode(): value.decode() for key, value in told[2 * number].items()}
                found[id] = Record(fields, bool(told[2 * number + 1]))
        return found

    def stop(self, id: str, k: str, state: str) -> bool:
        """Let nobody begin it any more; False when a worker has."""
        return bool(self._call("stop", id, k, state, self._keep))

    # --- the worker's side

    def begin(self, id: str, k: str, token: str, lease: float) -> str:
        """Take a job; "go", or why not."""
        answer = self._call("begin", id, k, token, int(lease * 1000), time.time())
        return str(answer.decode())

    def renew(self, id: str, k: str, token: str, lease: float) -> bool:
        """Say that its worker lives; False when another has the job by now."""
        return bool(self._call("renew", id, token, int(lease * 1000), k))

    def record(self, id: str, cells: "Mapping[str, str]") -> None:
        """Keep what the running job has stored of itself."""
        self._client.hset(PREFIX + id, "recorded", json.dumps(dict(cells)))

    def finish(self, id: str, k: str, number: int, cells: "Mapping[str, str]") -> bool:
        """Keep an outcome; False when the job was claimed anew meanwhile."""
        return bool(self._call("finish", id, k, number, json.dumps(dict(cells)), self._keep))
