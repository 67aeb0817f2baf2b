"""The simulation: the real ``governor/`` and ``tasks/`` on simulated ports, under one seeded clock.

A world has processes of every kind (ingress, workers' children, beat), each a greenlet. A step is
one call of a port, or one move of the clock. The seed decides how long each call takes, which fails
(lost, or landed and reported failed), which process dies or stands still, what becomes of messages.
Safety is checked at every commit; then faults end, and everything must end well within bounds.

Memory is the real adapter with its real scripts, on fakeredis under the simulated clock.
"""
