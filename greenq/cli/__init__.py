"""The command line: what the user asked for, as values, and what is shown in return.

Starts nothing: see __main__.py, which hands the options to the supervisor.
"""
