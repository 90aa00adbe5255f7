"""Whether the workers live, and whether they work: for those who restart what is sick, and for load balancers.

    HTTP child --control socket--> supervisor --> workers

judgement.py says what the supervisor's answer means, server.py asks once a second and serves it.
"""
