"""What is counted, where the counts are kept, and how they are served.

    worker -> its area of a shared file        counted in memory, by nobody else: shared.py
    supervisor -> makes the file, and says which area is whose; reads nothing
    a process beside the workers -> reads all areas when it is asked: server.py, listener.py

catalogue.py lists the metrics, text.py writes them as Prometheus reads them, sampler.py looks
at what is better looked at now and then than counted. Standard library only, because the
supervisor comes in here too. The middleware that counts is middleware/prometheus.py.
"""
