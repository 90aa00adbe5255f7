"""A pytest plug-in that lets gevent patch the process first: pytest -p tests.support.patch

The tests of the worker and the contract suites run twice, once in each world: their
threading.Event and time.sleep block a thread in the one and a greenlet in the other.
"""

from gevent import monkey

monkey.patch_all()
