"""Pictures: numbers in, SVG out.  Pure functions; colours are classes of static/style.css.

Each says the same in words for those who do not see it.  The plots stretch to the width that there
is, their texts do not.
"""

from .charts import bars as bars
from .charts import lines as lines
from .charts import share as share
from .charts import strip as strip
from .graph import Node as Node
from .graph import graph as graph
from .timeline import timeline as timeline
