"""What a run learns: the built-in arithmetic, or problems from a file.

`build.make_task` makes a task from a configuration. Nothing is imported here: reward workers take
`problem` alone and start in a few hundredths of a second.
"""
