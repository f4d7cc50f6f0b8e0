"""The lab's pages: HTML that is whole without a script, one router a file.

They ask the read models and decide nothing.
"""
