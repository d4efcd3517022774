"""Which jobs: one rule for what lists them, counts them, and changes many at once.

choice = Choice(status="failed", type="mail", text="refused")
for job in jobs(choice): …          page(choice, before=id) for one page of a long file
count(choice), ids(choice)          cancel(ids(choice)); Queue.retry and Queue.purge take ids too
"""

from .acting import cancel as cancel
from .choice import Choice as Choice
from .looking import Page as Page
from .looking import count as count
from .looking import ids as ids
from .looking import jobs as jobs
from .looking import page as page
