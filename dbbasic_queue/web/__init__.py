"""The dashboard: a WSGI application, and a server of the standard library's for it.

    dashboard("data/queue.tsv", auth=who, hosts=["example.com"])     to mount in an application
    serve("data/queue.tsv")                                          on 127.0.0.1

It shows; it changes only for whom `auth` names or who has the token.  Pages work without
JavaScript, and load nothing from elsewhere.
"""

from .app import dashboard as dashboard
from .server import serve as serve
