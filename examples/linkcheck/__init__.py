"""Checks the links of a web site: one job for a page, a thousand pages at once.

__main__ -> server (a tree of files, over HTTP)      tree says what it answers
__main__ -> greenq-worker, which imports crawl       record remembers the pages
__main__ -> report, once the record says that every page is checked
"""
