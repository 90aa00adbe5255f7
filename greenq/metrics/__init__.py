"""What is counted, where the counts are kept, and how they are served.

    worker -> its area of a shared file        counted in memory, by nobody else: shared.py
    supervisor -> makes the file, and says which area is whose; reads nothing
    a process beside the workers -> reads all areas when it is asked: server.py, whole_page.py

catalogue.py lists the metrics, text.py writes them as Prometheus reads them. Standard library only,
and nobody waits here for a worker or a broker, because the supervisor comes in too. The middleware
that counts is middleware/prometheus.py; what is better looked at now and then: worker/sampler.py.
"""
