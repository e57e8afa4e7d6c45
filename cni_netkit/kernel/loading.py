"""The lock of what is imported when it is asked for.

pyroute2's modules import each other in a circle. Of two threads that begin at different places of
it Python lets one fail (`_DeadlockError`), or see half of a module; so one at a time begins.
"""

import threading

alone = threading.RLock()
