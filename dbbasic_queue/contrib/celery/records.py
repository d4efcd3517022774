"""What Redis knows of each job: a hash, so that no id runs twice, and none is lost unseen.

Its name is the job's id where no file has it, and else the id with the claim: two files may have a
job of the same id.  `k` is the claim of the row for which this stands, `state` one of

    new        is about to be sent, or its sender died in it
    sent       waits in the engine
    running    a worker has it; while it lives the lease beside the hash does.  Who first finds
               none makes one, and notes that: Redis may have been away, not the worker
    done       `cells` are the outcome, `number` the attempt
    cancelled  refused by whoever comes for it
    recalled   as cancelled, but its row is to be pending again

Each step from one state to another is one script, so it happens for exactly one of several askers.
A finished one is kept for `keep` seconds: so long a message that is delivered again is refused.
"""

import json
import time

import redis

from ...errors import BadArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

PREFIX = "dbbasic-queue:"
_UNFINISHED = 90 * 86400  # seconds after which what nobody finishes is forgotten
_STORED = 3600
_AT_ONCE = 1000  # ids in one round trip

# KEYS: the hash, the lease.  ARGV: k, whose token, lease in ms, now.
_BEGIN = """
local k, state, worker = unpack(redis.call('HMGET', KEYS[1], 'k', 'state', 'worker'))
if not k then return 'unknown' end
if k ~= ARGV[1] then return 'old' end
if state == 'running' and worker == ARGV[2] then return 'go' end
if state ~= 'new' and state ~= 'sent' then return state end
redis.call('HSET', KEYS[1], 'state', 'running', 'worker', ARGV[2], 'started', ARGV[4])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 'go'
"""
# ARGV: k, lease in ms.
_DIED = """
local k, state, lapsed = unpack(redis.call('HMGET', KEYS[1], 'k', 'state', 'lapsed'))
if k ~= ARGV[1] or state ~= 'running' or redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
if lapsed then return 1 end
redis.call('HSET', KEYS[1], 'lapsed', '1')
redis.call('SET', KEYS[2], 'lapsed', 'PX', ARGV[2])
return 0
"""
# ARGV: token, lease in ms, k, what the job has stored of itself or ''.
# A Redis that has lost everything learns again what runs.
_RENEW = """
local k, worker = unpack(redis.call('HMGET', KEYS[1], 'k', 'worker'))
if k and worker ~= ARGV[1] then return 0 end
if not k then
    redis.call('HSET', KEYS[1], 'k', ARGV[3], 'state', 'running', 'worker', ARGV[1])
end
redis.call('HDEL', KEYS[1], 'lapsed')
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'recorded', ARGV[4]) end
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
    redis.call('HINCRBY', KEYS[1], 'times', 1)
end
return 1
"""
# ARGV: k, seconds to keep, the only claim that this may follow ('new': none), then fields and
# their values.
_PROMISE = """
local k, state, sent = unpack(redis.call('HMGET', KEYS[1], 'k', 'state', 'sent'))
if k == ARGV[1] and ARGV[3] ~= 'new' then return 1 end
local left = ARGV[3] == 'new' and state == 'new' and ARGV[5] - (sent or 0) > 60
if k and ARGV[3] ~= '' and k ~= ARGV[3] and not left then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'k', ARGV[1], 'state', 'new', unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""


def client_of(url: str, **given: "Any") -> "redis.Redis":
    """Return a client; BadArgument without the URL, which may hold a password."""
    try:
        return redis.Redis.from_url(url, **given)
    except ValueError:
        raise BadArgument(
            "the address of the Redis cannot be read; in a password / is %2F, # is %23, @ is %40"
        ) from None


def name_of(id: str, k: str, direct: bool = False) -> str:
    """Return the name of a job's record."""
    return id if direct else f"{id}.{k}"


class Record:
    """What Redis knew of one job when it was asked; `k` is "" where it knew nothing."""

    def __init__(self, fields: "Mapping[str, str]", leased: bool) -> None:
        self.k = fields.get("k", "")
        self.state = fields.get("state", "")
        self.sent = float(fields.get("sent") or 0)
        self.times = int(fields.get("times") or 0)  # that it was sent
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
        names = ("begin", "died", "renew", "finish", "stop", "sent", "promise")
        texts = (_BEGIN, _DIED, _RENEW, _FINISH, _STOP, _SENT, _PROMISE)
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
        then: str = "",
    ) -> bool:
        """Say of each id that its message for claim k is about to be sent.

        `then`: only if this was its claim till now, or "new": if it is not known yet, or who was
        about to send it died.  False when that was not so of one, of which nothing was said.
        """
        given = [_UNFINISHED, then, "sent", time.time()]
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

    def forget(self, names: "Iterable[str]") -> None:
        """Keep records no longer than it takes to store what was read from them."""
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.expire(PREFIX + name, _STORED)
            pipe.execute()

    def stop(self, id: str, k: str, state: str, due: float = 0) -> bool:
        """Let nobody begin it any more; False when a worker has.

        `due` is when its message comes, which must find this.
        """
        keep = self._keep + max(0, int(due - time.time()))
        return bool(self._call("stop", id, k, state, keep))

    def died(self, id: str, k: str, lease: float) -> bool:
        """Whether the worker that has it said nothing for its lease, and for another half of it
        since somebody first asked so.
        """
        return bool(self._call("died", id, k, int(lease * 500)))

    # --- the worker's side

    def begin(self, id: str, k: str, token: str, lease: float) -> str:
        """Take a job; "go", or why not."""
        answer = self._call("begin", id, k, token, int(lease * 1000), time.time())
        return str(answer.decode())

    def renew(
        self,
        id: str,
        k: str,
        token: str,
        lease: float,
        recorded: "Mapping[str, str]" = {},  # noqa: B006
    ) -> bool:
        """Say that its worker lives, and perhaps what the running job has stored of itself; False
        when another has the job by now.
        """
        cells = json.dumps(dict(recorded)) if recorded else ""
        return bool(self._call("renew", id, token, int(lease * 1000), k, cells))

    def finish(self, id: str, k: str, number: int, cells: "Mapping[str, str]") -> bool:
        """Keep an outcome; False when the job was claimed anew meanwhile."""
        return bool(self._call("finish", id, k, number, json.dumps(dict(cells)), self._keep))
