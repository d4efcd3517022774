"""Is the queue healthy?  One look, and a level for each thing that can be wrong.

check(queue)   -> checks, each with a name, a level and a text
worst(checks)  -> the level of them all: ok, warning, critical, or unknown

It is for a monitor that asks each minute: it looks once over the file, and changes nothing.
`doctor` looks deeper, and says what to do.
"""

from .broken import forget as forget
from .broken import note as note
from .check import CRITICAL as CRITICAL
from .check import OK as OK
from .check import UNKNOWN as UNKNOWN
from .check import WARNING as WARNING
from .check import Check as Check
from .check import Figure as Figure
from .check import worst as worst
from .looking import check as check
